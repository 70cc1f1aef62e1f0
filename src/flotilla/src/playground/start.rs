//! Which processes a playground consists of, and with which settings.

use std::collections::BTreeMap;
use std::path::Path;

use super::Options;
use super::children::Member;
use super::ports::Ports;
use crate::failure::Failure;

/// After so long the peers of a store that is gone are made anew elsewhere: people who kill one want to see it.
const MAX_STORE_DOWN_MS: u64 = 60_000;

/// The addresses of the schedulers.
pub(super) fn endpoints(ports: &Ports) -> Vec<String> {
    ports.schedulers.iter().map(|port| format!("127.0.0.1:{port}")).collect()
}

/// Data of another number of processes than are to be started would miss their majority, or have one of their own.
pub(super) fn check_data(options: &Options, data_dir: &Path) -> Result<(), Failure> {
    let existing = |name: &str| {
        (1_u16..).take_while(|n| data_dir.join(format!("{name}-{n}")).is_dir()).count()
    };
    let dir = data_dir.display();
    let (stores, schedulers) = (existing("store"), existing("scheduler"));
    if stores > usize::from(options.stores) {
        return Err(Failure::Usage(format!(
            "the data in {dir} are of {stores} stores: say --stores {stores}, or another --data-dir"
        )));
    }
    if schedulers > 0 && schedulers != usize::from(options.schedulers) {
        return Err(Failure::Usage(format!(
            "the data in {dir} are of {schedulers} schedulers: say --schedulers {schedulers}, or another --data-dir"
        )));
    }
    Ok(())
}

/// Starts everything.
pub(super) fn all(
    options: &Options,
    ports: &Ports,
    data_dir: &Path,
) -> Result<Vec<Member>, Failure> {
    let mut members = Vec::new();
    for (number, address) in (1..).zip(endpoints(ports)) {
        let name = format!("scheduler-{number}");
        let settings = scheduler_settings(options, ports, number)?;
        let args = args("scheduler", &name, &address, data_dir, settings);
        members.push(Member::start(name, address, data_dir, args)?);
    }
    for (number, port) in (1..).zip(&ports.stores) {
        let (name, address) = (format!("store-{number}"), format!("127.0.0.1:{port}"));
        let settings = store_settings(options, ports)?;
        let args = args("store", &name, &address, data_dir, settings);
        members.push(Member::start(name, address, data_dir, args)?);
    }
    Ok(members)
}

type Settings = BTreeMap<String, String>;

fn args(verb: &str, name: &str, address: &str, data_dir: &Path, settings: Settings) -> Vec<String> {
    let dir = data_dir.join(name).display().to_string();
    let fixed = [verb, "--with-parent", "--addr", address, "--data-dir", &dir];
    let settings = settings.into_iter().map(|(name, value)| format!("--{name}={value}"));
    fixed.map(str::to_owned).into_iter().chain(settings).collect()
}

fn scheduler_settings(options: &Options, ports: &Ports, number: u16) -> Result<Settings, Failure> {
    let mut settings = Settings::from([
        ("initial-stores".to_owned(), options.stores.to_string()),
        ("replicas".to_owned(), options.stores.min(3).to_string()),
        ("max-store-down-ms".to_owned(), MAX_STORE_DOWN_MS.to_string()),
    ]);
    if options.schedulers > 1 {
        let peer = |(number, address)| format!("s{number}={address}");
        let peers: Vec<String> = (1..).zip(endpoints(ports)).map(peer).collect();
        settings.insert("name".to_owned(), format!("s{number}"));
        settings.insert("peers".to_owned(), peers.join(","));
    }
    lay_over(&mut settings, "--scheduler-setting", &options.scheduler_setting)?;
    Ok(settings)
}

fn store_settings(options: &Options, ports: &Ports) -> Result<Settings, Failure> {
    let schedulers = endpoints(ports).join(",");
    let mut settings = Settings::from([("schedulers".to_owned(), schedulers)]);
    if let Some(size) = &options.region_max_size {
        settings.insert("region-max-bytes".to_owned(), size.clone());
    }
    lay_over(&mut settings, "--store-setting", &options.store_setting)?;
    Ok(settings)
}

/// What the user says wins.
fn lay_over(settings: &mut Settings, flag: &str, typed: &[String]) -> Result<(), Failure> {
    for setting in typed {
        let (name, value) = setting
            .split_once('=')
            .ok_or_else(|| Failure::Usage(format!("{flag} {setting}: it is NAME=VALUE")))?;
        settings.insert(name.replace('_', "-"), value.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_says_wins() {
        let mut settings = Settings::from([("tick-ms".to_owned(), "50".to_owned())]);
        let typed = ["tick_ms=20".to_owned(), "reads=lease".to_owned()];
        lay_over(&mut settings, "--store-setting", &typed).expect("they are pairs");
        assert_eq!(settings["tick-ms"], "20");
        assert_eq!(settings["reads"], "lease");
        assert!(lay_over(&mut settings, "--store-setting", &["x".to_owned()]).is_err());
    }
}
