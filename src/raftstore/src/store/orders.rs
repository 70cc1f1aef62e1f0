//! Orders of the scheduler or an administrator to one region: who may give them, and which peer method carries them out.
//!
//! An order is a wish, not a fact: it is checked against what the leader has applied, proposed, and decided again when its
//! entry is applied. The answer says that it was proposed, or why not.

use super::Store;
use crate::msg::{AdminRequest, Order};

impl Store {
    /// An order for one region.
    pub(super) fn on_admin(&mut self, request: AdminRequest) {
        let AdminRequest { header, order, reply } = request;
        let checked =
            self.with_peer(header.region, |peer, context| peer.check_order(&header, context));
        let outcome = match checked {
            None => Err(self.no_peer(&header)),
            Some(Err(error)) => Err(error),
            Some(Ok(())) => match order {
                Order::ChangePeers(changes) => {
                    let proposed = self.with_peer(header.region, |peer, context| {
                        peer.change_peers(changes, context)
                    });
                    proposed.unwrap_or_else(|| Err(self.no_peer(&header)))
                }
                Order::Split { keys } => self.order_split(header.region, keys),
                Order::Merge { target } => self.order_merge(header.region, &target),
            },
        };
        reply.send(outcome);
    }
}
