//! Who the members are: a fixed list, the same on every one of them.
//!
//! A member's number (its store id and peer id in the scheduler's own cluster) is its place in the list sorted by name; that
//! cluster's id is a digest of the names. So every member derives the same region without asking anybody, addresses may
//! change from start to start, and data of another list is refused by its identity.

use proto::ids::StoreId;
use proto::{metapb, pdpb};
use transport::{Identity, Resolve, ResolveError, Resolving};

use crate::journal;

/// Numbers of members a scheduler can have.
const COUNTS: [usize; 3] = [1, 3, 5];
/// Characters of a member's name.
const NAME_CHARS_MAX: usize = 64;

/// Why a list of members cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("setting `{setting}`: {reason}")]
pub struct MembersError {
    /// Which setting.
    pub setting: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl MembersError {
    fn new(setting: &'static str, reason: impl ToString) -> MembersError {
        MembersError { setting, reason: reason.to_string() }
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: String,
    /// Where the others reach it, `host:port`.
    pub(super) peer_address: String,
    /// Where clients reach it, `http://host:port`.
    pub(super) client_url: String,
}

/// All members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Members {
    /// By name; the number of a member is its place, from 1.
    list: Vec<Member>,
    me: usize,
}

impl Members {
    /// The list of `peers`: entries `name=host:port`, or `name=host:port@host:port` where clients use another address.
    pub(super) fn parse(name: &str, peers: &[String]) -> Result<Members, MembersError> {
        let wrong = |reason: String| MembersError::new("peers", reason);
        let mut list = Vec::new();
        for entry in peers {
            let (name, addresses) = entry
                .split_once('=')
                .ok_or_else(|| wrong(format!("`{entry}` is not name=host:port")))?;
            let (peer, client) = addresses.split_once('@').unwrap_or((addresses, addresses));
            list.push(Member {
                name: checked_name("peers", name)?,
                peer_address: bare(peer).map_err(&wrong)?,
                client_url: format!("http://{}", bare(client).map_err(&wrong)?),
            });
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        if !COUNTS.contains(&list.len()) {
            let count = list.len();
            return Err(wrong(format!("{count} members; a scheduler has 1, 3 or 5")));
        }
        for (at, member) in list.iter().enumerate() {
            let twice = |other: &Member| {
                other.name == member.name || other.peer_address == member.peer_address
            };
            if list[..at].iter().any(twice) {
                return Err(wrong(format!("`{}` or its address is there twice", member.name)));
            }
        }
        let me = list.iter().position(|member| member.name == name);
        let me = me.ok_or_else(|| {
            MembersError::new("name", format!("`{name}` is not one of the members in `peers`"))
        })?;
        Ok(Members { list, me })
    }

    /// A scheduler of one member.
    pub(super) fn alone(
        name: &str,
        peer_address: &str,
        client: &str,
    ) -> Result<Members, MembersError> {
        let client = bare(client).map_err(|reason| MembersError::new("advertise_url", reason))?;
        let member = Member {
            name: checked_name("name", name)?,
            peer_address: peer_address.to_owned(),
            client_url: format!("http://{client}"),
        };
        Ok(Members { list: vec![member], me: 0 })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// This one's number.
    pub(super) fn me(&self) -> StoreId {
        number(self.me)
    }

    /// All, with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (StoreId, &Member)> {
        self.list.iter().enumerate().map(|(at, member)| (number(at), member))
    }

    /// One by its number.
    pub(super) fn get(&self, id: StoreId) -> Option<&Member> {
        let at = usize::try_from(id.get()).ok()?.checked_sub(1)?;
        self.list.get(at)
    }

    /// As GetMembers shows it.
    pub(super) fn wire(&self, id: StoreId) -> Option<pdpb::Member> {
        let member = self.get(id)?;
        Some(pdpb::Member {
            name: member.name.clone(),
            member_id: id.get(),
            peer_urls: vec![format!("http://{}", member.peer_address)],
            client_urls: vec![member.client_url.clone()],
            binary_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..pdpb::Member::default()
        })
    }

    /// Who this member is among the others.
    pub(super) fn identity(&self) -> Identity {
        Identity { cluster_id: self.digest(), store_id: self.me() }
    }

    /// The region they share.
    pub(super) fn region(&self) -> metapb::Region {
        let ids: Vec<StoreId> = self.iter().map(|(id, _)| id).collect();
        journal::region(&ids)
    }

    /// FNV-1a over the names, each with its length's end marked; never 0.
    fn digest(&self) -> u64 {
        let names = self.list.iter().flat_map(|member| member.name.bytes().chain([0]));
        let digest = names.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        digest.max(1)
    }
}

impl Resolve for Members {
    fn resolve(&self, store: StoreId) -> Resolving<'_> {
        let found = self.get(store).map(|member| member.peer_address.clone());
        Box::pin(std::future::ready(found.ok_or(ResolveError::Unknown(store))))
    }
}

fn number(at: usize) -> StoreId {
    StoreId::new(at as u64 + 1)
}

fn checked_name(setting: &'static str, name: &str) -> Result<String, MembersError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(plain) {
        let reason = format!(
            "`{name}` is not a name of 1 to {NAME_CHARS_MAX} letters, digits, `-`, `_` or `.`"
        );
        return Err(MembersError::new(setting, reason));
    }
    Ok(name.to_owned())
}

/// `host:port` of an address with or without `http://`.
fn bare(address: &str) -> Result<String, String> {
    let bare = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    let port = bare.rsplit_once(':').and_then(|(host, port)| {
        (!host.is_empty() && !bare.contains("://")).then(|| port.parse::<u16>().ok()).flatten()
    });
    match port {
        Some(_) => Ok(bare.to_owned()),
        None => Err(format!("`{address}` is not host:port")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, peers: &[&str]) -> Result<Members, MembersError> {
        let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
        Members::parse(name, &peers)
    }

    #[test]
    fn every_member_numbers_the_list_alike_whatever_its_order_and_addresses() {
        let a = parse("b", &["c=h:3", "a=h:1", "b=h:2@public:9"]).unwrap();
        let b = parse("c", &["a=x:1", "b=x:2", "c=x:3"]).unwrap();
        assert_eq!((a.me(), b.me()), (StoreId::new(2), StoreId::new(3)));
        assert_eq!(a.identity().cluster_id, b.identity().cluster_id);
        assert_eq!(a.region(), b.region());
        let wire = a.wire(StoreId::new(2)).unwrap();
        assert_eq!(wire.peer_urls, ["http://h:2"]);
        assert_eq!(wire.client_urls, ["http://public:9"]);
        assert_eq!(a.wire(StoreId::new(4)), None);
        assert_eq!(a.wire(StoreId::default()), None);
        let other = parse("d", &["a=h:1", "b=h:2", "d=h:3"]).unwrap();
        assert_ne!(a.identity().cluster_id, other.identity().cluster_id);
    }

    #[test]
    fn a_list_that_cannot_be_meant_is_refused_by_name() {
        let refusals = [
            (parse("a", &["a=h:1", "b=h:2"]), "2 members; a scheduler has 1, 3 or 5"),
            (parse("x", &["a=h:1"]), "`x` is not one of the members"),
            (parse("a", &["a=h:1", "a=h:2", "c=h:3"]), "twice"),
            (parse("a", &["a=h:1", "b=h:1", "c=h:3"]), "twice"),
            (parse("a", &["a"]), "`a` is not name=host:port"),
            (parse("a", &["a=h"]), "`h` is not host:port"),
            (parse("a", &["a=https://h:1"]), "is not host:port"),
            (parse("a", &["a b=h:1"]), "is not a name"),
            (Members::alone("", "h:1", "h:1"), "is not a name"),
            (Members::alone("a", "h:1", "h:x"), "advertise_url"),
        ];
        for (refused, text) in refusals {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
