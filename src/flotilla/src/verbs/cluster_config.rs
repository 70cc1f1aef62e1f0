//! `config get`, `config set`: settings of the running cluster, kept by the scheduler and changed while it runs. Settings of
//! a process are in its file, flags and environment instead.

use proto::flotillapb::{ConfigItem, ConfigRequest};
use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::node::settings::suggestion;
use crate::output::Record;

/// What can be done with the settings of the cluster.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Print settings of the running cluster with their meaning
    Get {
        /// Only this one
        name: Option<String>,
    },
    /// Change settings of the running cluster
    Set {
        /// NAME=VALUE, or one NAME and its VALUE
        #[arg(required = true, value_name = "NAME=VALUE", allow_negative_numbers = true)]
        settings: Vec<String>,
    },
}

/// Does it, and prints what is asked for, or what was changed.
pub(crate) async fn run(context: &mut Context, verb: Verb) -> Result<(), Failure> {
    let (wanted, set) = match verb {
        Verb::Get { name } => (name.into_iter().collect(), Vec::new()),
        Verb::Set { settings } => {
            let set = pairs(&settings)?;
            (set.iter().map(|item| item.name.clone()).collect::<Vec<_>>(), set)
        }
    };
    let items = ask(context, Vec::new()).await?;
    for name in &wanted {
        let known = || items.iter().map(|item| item.name.as_str());
        if !known().any(|known| known == name) {
            let near = suggestion(name, known());
            return Err(Failure::NotFound(format!("there is no setting `{name}`{near}")));
        }
    }
    let items = if set.is_empty() { items } else { ask(context, set).await? };
    let shown = items.iter().filter(|item| wanted.is_empty() || wanted.contains(&item.name));
    let records = shown.map(record).collect();
    context.output.records(&["setting", "value", "default", "meaning"], records)
}

async fn ask(context: &mut Context, set: Vec<ConfigItem>) -> Result<Vec<ConfigItem>, Failure> {
    let admin = context.admin().await?;
    let request = ConfigRequest { header: admin.header(), set };
    let ask = |mut client: crate::admin::Operations| {
        let request = request.clone();
        async move { client.config(request).await }
    };
    Ok(admin.ask(ask).await?.items)
}

/// `a=1 b=2`, or `a 1`.
fn pairs(typed: &[String]) -> Result<Vec<ConfigItem>, Failure> {
    let item = |name: &str, value: &str| ConfigItem {
        name: name.trim().to_owned(),
        value: value.trim().to_owned(),
        ..ConfigItem::default()
    };
    if let [name, value] = typed
        && !name.contains('=')
    {
        return Ok(vec![item(name, value)]);
    }
    let pair = |typed: &String| match typed.split_once('=') {
        Some((name, value)) => Ok(item(name, value)),
        None => Err(Failure::Usage(format!("'{typed}' is not NAME=VALUE"))),
    };
    typed.iter().map(pair).collect()
}

fn record(item: &ConfigItem) -> Record {
    let ConfigItem { name, value, default_value, meaning } = item;
    Record {
        cells: vec![name.clone(), value.clone(), default_value.clone(), meaning.clone()],
        json: json!({
            "name": name, "value": value, "default": default_value, "meaning": meaning,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_typed_either_way() {
        let names = |typed: &[&str]| {
            let typed: Vec<String> = typed.iter().map(|word| (*word).to_owned()).collect();
            let items = pairs(&typed).map_err(|failure| failure.code());
            items.map(|items| items.into_iter().map(|i| (i.name, i.value)).collect::<Vec<_>>())
        };
        let item = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(names(&["a", "1"]), Ok(vec![item("a", "1")]));
        assert_eq!(names(&["a=1", "b="]), Ok(vec![item("a", "1"), item("b", "")]));
        assert_eq!(names(&["a"]), Err(2));
        assert_eq!(names(&["a=1", "b"]), Err(2));
    }
}
