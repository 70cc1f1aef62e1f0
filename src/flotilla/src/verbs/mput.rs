//! `mput KEY VALUE [KEY VALUE]…`.

use crate::context::Context;
use crate::failure::Failure;

/// Sets values.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keys and values in turn; values as for `put`. Atomic per region, not as a whole
    #[arg(required = true, value_name = "KEY VALUE", allow_negative_numbers = true)]
    pairs: Vec<String>,
}

/// Sets the values.
pub(crate) async fn run(context: &mut Context, args: Args) -> Result<(), Failure> {
    let mut pairs = Vec::with_capacity(args.pairs.len() / 2);
    for pair in args.pairs.chunks(2) {
        let [key, value] = pair else {
            return Err(Failure::Usage(format!("'{}' has no value", pair[0])));
        };
        pairs.push((context.key(key)?, context.value(value)?));
    }
    Ok(context.client().await?.batch_put(pairs).await?)
}
