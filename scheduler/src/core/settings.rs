//! What can be set while the cluster runs: a table of at most twenty names, each with its meaning, its
//! default and what it accepts.
//!
//! Only what was set is in the journal; a default may change with the version.

use proto::flotillapb::{self, ConfigItem};
use proto::limits::STORE_LABELS_MAX;

use super::Config;
use super::error::Error;

/// Bytes of a label's name in a setting.
const LABEL_BYTES_MAX: usize = 64;
const DAY_MS: u64 = 86_400_000;

/// The values in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) max_replicas: u64,
    pub(super) location_labels: Vec<String>,
    pub(super) isolation_label: Vec<String>,
    pub(super) store_disconnect_ms: u64,
    pub(super) max_store_down_ms: u64,
    pub(super) low_space_percent: u64,
    pub(super) leader_schedule_limit: u64,
    pub(super) region_schedule_limit: u64,
    pub(super) replica_schedule_limit: u64,
    pub(super) merge_schedule_limit: u64,
    pub(super) store_operator_limit: u64,
    pub(super) region_max_bytes: u64,
    pub(super) merge_max_bytes: u64,
    pub(super) merge_max_keys: u64,
    pub(super) split_merge_interval_ms: u64,
    pub(super) hot_region_bytes_per_s: u64,
    pub(super) prepare_ms: u64,
}

/// What a setting accepts, and where it is kept.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Number { min: u64, max: u64, place: fn(&mut Settings) -> &mut u64 },
    Names { max: usize, place: fn(&mut Settings) -> &mut Vec<String> },
}

/// One setting.
#[derive(Clone, Copy, Debug)]
struct Item {
    name: &'static str,
    meaning: &'static str,
    kind: Kind,
}

macro_rules! number {
    ($field:ident, $min:expr, $max:expr, $meaning:expr) => {
        Item {
            name: stringify!($field),
            meaning: $meaning,
            kind: Kind::Number { min: $min, max: $max, place: |settings| &mut settings.$field },
        }
    };
}

macro_rules! names {
    ($field:ident, $max:expr, $meaning:expr) => {
        Item {
            name: stringify!($field),
            meaning: $meaning,
            kind: Kind::Names { max: $max, place: |settings| &mut settings.$field },
        }
    };
}

/// All of them, in the order in which they are shown.
const ITEMS: [Item; 17] = [
    number!(max_replicas, 0, 7, "peers of each region; 0: three, or as many as there are stores"),
    names!(
        location_labels,
        STORE_LABELS_MAX,
        "labels that say where a store is, from the largest unit to the smallest, with commas"
    ),
    names!(isolation_label, 1, "no two peers of a region share a value of this label; empty: none"),
    number!(store_disconnect_ms, 100, DAY_MS, "silence after which a store gets nothing new"),
    number!(
        max_store_down_ms,
        100,
        30 * DAY_MS,
        "silence after which a store's peers are replaced"
    ),
    number!(low_space_percent, 0, 90, "a store with less free space than this gets no peers"),
    number!(leader_schedule_limit, 0, 64, "leaders moved at once to balance"),
    number!(region_schedule_limit, 0, 2048, "peers moved at once to balance"),
    number!(replica_schedule_limit, 0, 2048, "regions repaired at once"),
    number!(merge_schedule_limit, 0, 64, "regions merged at once"),
    number!(store_operator_limit, 1, 256, "peers that come to or leave one store at once"),
    number!(region_max_bytes, 1 << 10, 1 << 40, "a larger region is split"),
    number!(merge_max_bytes, 0, 1 << 40, "a smaller region is merged if its keys are few, too"),
    number!(merge_max_keys, 0, 1 << 40, "a region of fewer keys is merged if it is small, too"),
    number!(split_merge_interval_ms, 0, 30 * DAY_MS, "after a split nothing is merged for so long"),
    number!(hot_region_bytes_per_s, 1, 1 << 40, "reads and writes that make a region hot"),
    number!(prepare_ms, 0, DAY_MS, "a new scheduler waits so long for the regions to report"),
];

impl Settings {
    /// What holds while nothing was set.
    pub(super) fn defaults(config: &Config) -> Self {
        Self {
            max_replicas: 0,
            location_labels: vec!["zone".into(), "host".into()],
            isolation_label: vec!["host".into()],
            store_disconnect_ms: config.store_down_ms,
            max_store_down_ms: config.max_store_down_ms,
            low_space_percent: 5,
            leader_schedule_limit: 8,
            region_schedule_limit: 16,
            replica_schedule_limit: 64,
            merge_schedule_limit: 4,
            store_operator_limit: 8,
            region_max_bytes: 128 << 20,
            merge_max_bytes: 8 << 20,
            merge_max_keys: 80_000,
            split_merge_interval_ms: 600_000,
            hot_region_bytes_per_s: 1 << 20,
            prepare_ms: 30_000,
        }
    }

    /// The defaults with what the journal has on top. A name that this version does not know has no
    /// effect.
    pub(super) fn restore(config: &Config, set: &flotillapb::Settings) -> Self {
        let mut settings = Self::defaults(config);
        for item in &set.items {
            let _ = settings.set(&item.name, &item.value);
        }
        settings
    }

    /// Sets one; nothing changes if it is refused.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let item = find(name)?;
        let refuse = |reason: String| Err(Error::invalid(item.name, reason));
        match item.kind {
            Kind::Number { min, max, place } => match value.trim().parse::<u64>() {
                Ok(number) if (min..=max).contains(&number) => *place(self) = number,
                Ok(number) => return refuse(format!("{number} is not between {min} and {max}")),
                Err(_) => return refuse(format!("{value:?} is not a whole number")),
            },
            Kind::Names { max, place } => {
                let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
                let names: Vec<String> = names.map(str::to_owned).collect();
                if names.len() > max {
                    return refuse(format!("{} names, more than {max}", names.len()));
                }
                if names.iter().any(|name| name.len() > LABEL_BYTES_MAX) {
                    return refuse(format!("a name of more than {LABEL_BYTES_MAX} bytes"));
                }
                *place(self) = names;
            }
        }
        Ok(())
    }

    fn value(&self, item: &Item) -> String {
        let mut copy = self.clone();
        match item.kind {
            Kind::Number { place, .. } => place(&mut copy).to_string(),
            Kind::Names { place, .. } => place(&mut copy).join(","),
        }
    }

    /// All of them, for people.
    pub(super) fn show(&self, config: &Config) -> Vec<ConfigItem> {
        let defaults = Self::defaults(config);
        let show = |item: &Item| ConfigItem {
            name: item.name.into(),
            value: self.value(item),
            default_value: defaults.value(item),
            meaning: item.meaning.into(),
        };
        ITEMS.iter().map(show).collect()
    }

    /// Those that differ from their defaults, for the journal.
    pub(super) fn record(&self, config: &Config) -> flotillapb::Settings {
        let mut items = self.show(config);
        items.retain(|item| item.value != item.default_value);
        for item in &mut items {
            item.default_value.clear();
            item.meaning.clear();
        }
        flotillapb::Settings { items }
    }
}

fn find(name: &str) -> Result<&'static Item, Error> {
    ITEMS.iter().find(|item| item.name == name).ok_or_else(|| {
        let near = nearest(name, ITEMS.iter().map(|item| item.name));
        Error::Refused(format!("there is no setting {name:?}{near}"))
    })
}

/// `: did you mean x?`, or nothing if no name is near.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let scored = known.map(|known| (strsim::jaro_winkler(name, known), known));
    match scored.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, known)) if score > 0.7 => format!(": did you mean {known}?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::defaults(&Config::default())
    }

    #[test]
    fn every_setting_takes_its_own_default_back_and_says_what_it_means() {
        let mut copy = settings();
        for item in settings().show(&Config::default()) {
            copy.set(&item.name, &item.default_value).unwrap();
            assert!(!item.meaning.is_empty());
        }
        assert_eq!(copy, settings());
        assert!(ITEMS.len() <= 20);
    }

    #[test]
    fn only_what_differs_is_remembered_and_it_comes_back() {
        let config = Config::default();
        let mut changed = settings();
        assert!(changed.record(&config).items.is_empty());
        changed.set("max_replicas", "5").unwrap();
        changed.set("location_labels", "rack, host").unwrap();
        let record = changed.record(&config);
        assert_eq!(record.items.len(), 2);
        assert_eq!(Settings::restore(&config, &record), changed);
        assert_eq!(changed.location_labels, ["rack", "host"]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        let mut settings = settings();
        let mut refusal =
            |name: &str, value: &str| settings.set(name, value).unwrap_err().to_string();
        assert_eq!(
            refusal("max_replica", "3"),
            "there is no setting \"max_replica\": did you mean max_replicas?"
        );
        assert_eq!(refusal("zzz", "3"), "there is no setting \"zzz\"");
        assert_eq!(refusal("max_replicas", "8"), "max_replicas: 8 is not between 0 and 7");
        assert_eq!(refusal("max_replicas", "many"), "max_replicas: \"many\" is not a whole number");
        assert_eq!(refusal("isolation_label", "a,b"), "isolation_label: 2 names, more than 1");
        let long = "n".repeat(65);
        assert!(refusal("location_labels", &long).contains("64 bytes"));
        assert_eq!(settings, self::settings());
    }
}
