//! The one mapping between requests and the wire: `Send` → a command of the batched stream, its answer → `Attempt`.
//!
//! Exactly-once writes travel as `flotilla.Write` and `Append`; plain ones as kvproto's raw requests, so that they mean
//! what they mean to every other client. A mixture that kvproto has no form for goes as a `Write` without a session.

use proto::errorpb;
use proto::flotillapb::{self, mutation, write_result};
use proto::kvrpcpb::{self, Context, KvPair};
use proto::tikvpb::batch_commands_request::request::Cmd as RequestCmd;
use proto::tikvpb::batch_commands_response::response::Cmd as ResponseCmd;

use super::request::{Attempt, Body, Mutation, Reply, Request, Send};

/// The command to put on the wire.
pub fn encode(send: &Send) -> RequestCmd {
    let context = Some(Context {
        region_id: send.region.get(),
        region_epoch: Some(send.epoch),
        peer: Some(send.peer),
        ..Context::default()
    });
    match &send.body {
        Body::OpenSession { client_id } => {
            RequestCmd::OpenSession(flotillapb::OpenSessionRequest {
                context,
                client_id: *client_id,
            })
        }
        Body::Request { request, session } => match &**request {
            Request::Get { key } => {
                let key = key.clone();
                RequestCmd::RawGet(kvrpcpb::RawGetRequest { context, key, ..Default::default() })
            }
            Request::BatchGet { keys } => {
                let keys = keys.clone();
                let request = kvrpcpb::RawBatchGetRequest { context, keys, ..Default::default() };
                RequestCmd::RawBatchGet(request)
            }
            Request::Scan(page) => {
                // In reverse the wire's start is the upper bound.
                let (start_key, end_key) = match page.reverse {
                    false => (page.start.clone(), page.end.clone()),
                    true => (page.end.clone(), page.start.clone()),
                };
                RequestCmd::RawScan(kvrpcpb::RawScanRequest {
                    context,
                    start_key,
                    end_key,
                    limit: page.limit,
                    key_only: page.keys_only,
                    reverse: page.reverse,
                    ..Default::default()
                })
            }
            Request::Write(mutations) => match session {
                Some(session) => encode_session_write(context, mutations, *session),
                None => encode_plain_write(context, mutations),
            },
        },
    }
}

fn encode_session_write(
    context: Option<Context>,
    mutations: &[Mutation],
    (client_id, sequence): (u64, u64),
) -> RequestCmd {
    let session = Some(flotillapb::Session { client_id, sequence });
    if let [Mutation::Append { key, suffix }] = mutations {
        return RequestCmd::Append(flotillapb::AppendRequest {
            context,
            session,
            cf: flotillapb::RawCf::Default as i32,
            key: key.clone(),
            value: suffix.clone(),
        });
    }
    let mutations = mutations.iter().map(encode_mutation).collect();
    RequestCmd::Write(flotillapb::WriteRequest { context, session, mutations })
}

fn encode_plain_write(context: Option<Context>, mutations: &[Mutation]) -> RequestCmd {
    match mutations {
        [Mutation::Put { key, value }] => {
            let (key, value) = (key.clone(), value.clone());
            return RequestCmd::RawPut(kvrpcpb::RawPutRequest {
                context,
                key,
                value,
                ..Default::default()
            });
        }
        [Mutation::Delete { key }] => {
            let key = key.clone();
            return RequestCmd::RawDelete(kvrpcpb::RawDeleteRequest {
                context,
                key,
                ..Default::default()
            });
        }
        [Mutation::DeleteRange { start, end }] => {
            return RequestCmd::RawDeleteRange(kvrpcpb::RawDeleteRangeRequest {
                context,
                start_key: start.clone(),
                end_key: end.clone(),
                ..Default::default()
            });
        }
        _ => {}
    }
    let puts: Option<Vec<KvPair>> = mutations.iter().map(as_put).collect();
    if let Some(pairs) = puts {
        let request = kvrpcpb::RawBatchPutRequest { context, pairs, ..Default::default() };
        return RequestCmd::RawBatchPut(request);
    }
    let mutations = mutations.iter().map(encode_mutation).collect();
    RequestCmd::Write(flotillapb::WriteRequest { context, session: None, mutations })
}

fn as_put(mutation: &Mutation) -> Option<KvPair> {
    match mutation {
        Mutation::Put { key, value } => {
            Some(KvPair { key: key.clone(), value: value.clone(), error: None })
        }
        Mutation::Delete { .. } | Mutation::Append { .. } | Mutation::DeleteRange { .. } => None,
    }
}

fn encode_mutation(mutation: &Mutation) -> flotillapb::Mutation {
    let cf = flotillapb::RawCf::Default as i32;
    let op = match mutation {
        Mutation::Put { key, value } => {
            mutation::Op::Put(mutation::Put { cf, key: key.clone(), value: value.clone() })
        }
        Mutation::Delete { key } => mutation::Op::Delete(mutation::Delete { cf, key: key.clone() }),
        Mutation::Append { key, suffix } => {
            mutation::Op::Append(mutation::Append { cf, key: key.clone(), value: suffix.clone() })
        }
        Mutation::DeleteRange { start, end } => mutation::Op::DeleteRange(mutation::DeleteRange {
            cf,
            start_key: start.clone(),
            end_key: end.clone(),
        }),
    };
    flotillapb::Mutation { op: Some(op) }
}

/// What the answer means. `None` for a command that nobody here sends.
pub fn decode(answer: ResponseCmd) -> Option<Attempt> {
    let attempt = match answer {
        ResponseCmd::RawGet(r) => {
            answered(r.region_error, r.error, || Reply::Value((!r.not_found).then_some(r.value)))
        }
        ResponseCmd::RawBatchGet(r) => decode_pairs(r.region_error, r.pairs),
        ResponseCmd::RawScan(r) => decode_pairs(r.region_error, r.kvs),
        ResponseCmd::RawPut(r) => answered(r.region_error, r.error, || Reply::Written),
        ResponseCmd::RawDelete(r) => answered(r.region_error, r.error, || Reply::Written),
        ResponseCmd::RawBatchPut(r) => answered(r.region_error, r.error, || Reply::Written),
        ResponseCmd::RawBatchDelete(r) => answered(r.region_error, r.error, || Reply::Written),
        ResponseCmd::RawDeleteRange(r) => answered(r.region_error, r.error, || Reply::Written),
        ResponseCmd::Write(r) => decode_result(r.region_error, r.result),
        ResponseCmd::Append(r) => decode_result(r.region_error, r.result),
        ResponseCmd::OpenSession(r) => decode_result(r.region_error, r.result),
        _ => return None,
    };
    Some(attempt)
}

fn answered(
    region_error: Option<errorpb::Error>,
    error: String,
    reply: impl FnOnce() -> Reply,
) -> Attempt {
    match region_error {
        Some(region_error) => Attempt::RegionError(Box::new(region_error)),
        None if !error.is_empty() => Attempt::Refused(error),
        None => Attempt::Ok(reply()),
    }
}

fn decode_pairs(region_error: Option<errorpb::Error>, pairs: Vec<KvPair>) -> Attempt {
    if let Some(region_error) = region_error {
        return Attempt::RegionError(Box::new(region_error));
    }
    // Raw pairs have no key errors of their own, but a refusal may come as one.
    if let Some(error) = pairs.iter().find_map(|pair| pair.error.as_ref()) {
        let known = [&error.abort, &error.retryable].into_iter().find(|text| !text.is_empty());
        return Attempt::Refused(known.cloned().unwrap_or_else(|| format!("{error:?}")));
    }
    Attempt::Ok(Reply::Pairs(pairs.into_iter().map(|pair| (pair.key, pair.value)).collect()))
}

fn decode_result(
    region_error: Option<errorpb::Error>,
    result: Option<flotillapb::WriteResult>,
) -> Attempt {
    if let Some(region_error) = region_error {
        return Attempt::RegionError(Box::new(region_error));
    }
    match result.and_then(|result| result.result) {
        Some(write_result::Result::Ok(_)) => Attempt::Ok(Reply::Written),
        Some(write_result::Result::AppendLength(length_bytes)) => {
            Attempt::Ok(Reply::Appended { length_bytes })
        }
        Some(write_result::Result::SessionExpired(_)) => Attempt::SessionExpired,
        Some(write_result::Result::StaleSequence(_)) => Attempt::StaleSequence,
        Some(write_result::Result::Error(reason)) => Attempt::Refused(reason),
        // Something was done, but nobody says what.
        None => Attempt::Lost { sent: true, reason: "an answer without a result".to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::ids::RegionId;
    use proto::metapb::{Peer, RegionEpoch};

    use super::*;

    fn send(request: Request, session: Option<(u64, u64)>) -> Send {
        Send {
            region: RegionId::from(2),
            epoch: RegionEpoch { conf_ver: 3, version: 4 },
            peer: Peer { id: 5, store_id: 6, ..Peer::default() },
            body: Body::Request { request: std::sync::Arc::new(request), session },
            timeout: std::time::Duration::from_secs(1),
        }
    }

    fn put(key: &'static str) -> Mutation {
        Mutation::Put { key: Bytes::from(key), value: Bytes::from("v") }
    }

    #[test]
    fn the_context_names_region_epoch_and_peer() {
        let RequestCmd::RawGet(get) = encode(&send(Request::Get { key: Bytes::from("k") }, None))
        else {
            panic!("a get is a RawGet");
        };
        let context = get.context.unwrap();
        assert_eq!(context.region_id, 2);
        assert_eq!(context.region_epoch, Some(RegionEpoch { conf_ver: 3, version: 4 }));
        assert_eq!(context.peer.map(|peer| (peer.id, peer.store_id)), Some((5, 6)));
    }

    #[test]
    fn plain_writes_use_the_published_forms() {
        let one = encode(&send(Request::Write(vec![put("a")]), None));
        assert!(matches!(one, RequestCmd::RawPut(_)));
        let two = encode(&send(Request::Write(vec![put("a"), put("b")]), None));
        assert!(matches!(two, RequestCmd::RawBatchPut(batch) if batch.pairs.len() == 2));
        let delete = Mutation::Delete { key: Bytes::from("a") };
        let mixed = encode(&send(Request::Write(vec![put("a"), delete]), None));
        assert!(matches!(mixed, RequestCmd::Write(write) if write.session.is_none()));
        let session = encode(&send(Request::Write(vec![put("a")]), Some((7, 8))));
        assert!(
            matches!(session, RequestCmd::Write(write) if write.session == Some(flotillapb::Session { client_id: 7, sequence: 8 }))
        );
    }

    #[test]
    fn a_reverse_page_swaps_its_bounds_on_the_wire() {
        let page = super::super::request::Page {
            start: Bytes::from("a"),
            end: Bytes::from("m"),
            limit: 5,
            reverse: true,
            keys_only: false,
        };
        let RequestCmd::RawScan(scan) = encode(&send(Request::Scan(page), None)) else {
            panic!("a page is a RawScan");
        };
        assert_eq!((&scan.start_key[..], &scan.end_key[..]), (&b"m"[..], &b"a"[..]));
    }

    #[test]
    fn answers_are_told_apart() {
        let found = kvrpcpb::RawGetResponse { value: Bytes::from("v"), ..Default::default() };
        let attempt = decode(ResponseCmd::RawGet(found)).unwrap();
        assert_eq!(attempt, Attempt::Ok(Reply::Value(Some(Bytes::from("v")))));
        let absent = kvrpcpb::RawGetResponse { not_found: true, ..Default::default() };
        assert_eq!(decode(ResponseCmd::RawGet(absent)), Some(Attempt::Ok(Reply::Value(None))));
        let refused = kvrpcpb::RawPutResponse { error: "no".to_owned(), ..Default::default() };
        assert_eq!(decode(ResponseCmd::RawPut(refused)), Some(Attempt::Refused("no".to_owned())));
        let empty = flotillapb::WriteResponse::default();
        assert!(matches!(
            decode(ResponseCmd::Write(empty)),
            Some(Attempt::Lost { sent: true, .. })
        ));
        assert_eq!(decode(ResponseCmd::Empty(Default::default())), None);
    }
}
