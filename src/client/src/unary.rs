//! One gRPC call per request, for stores that do not serve the batched stream.

use proto::flotillapb::kv_client::KvClient;
use proto::tikvpb::batch_commands_request::request::Cmd as RequestCmd;
use proto::tikvpb::batch_commands_response::response::Cmd as ResponseCmd;
use proto::tikvpb::tikv_client::TikvClient;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::link::{ANSWER_BYTES_MAX, Answer, Broken, describe};

/// Makes the call. A status says nothing about whether the store has seen the request.
pub(crate) async fn call(channel: Channel, cmd: RequestCmd) -> Answer {
    let mut tikv = TikvClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
    let mut kv = KvClient::new(channel);
    let answer = match cmd {
        RequestCmd::RawGet(r) => wrap(tikv.raw_get(r).await, ResponseCmd::RawGet),
        RequestCmd::RawBatchGet(r) => wrap(tikv.raw_batch_get(r).await, ResponseCmd::RawBatchGet),
        RequestCmd::RawScan(r) => wrap(tikv.raw_scan(r).await, ResponseCmd::RawScan),
        RequestCmd::RawPut(r) => wrap(tikv.raw_put(r).await, ResponseCmd::RawPut),
        RequestCmd::RawDelete(r) => wrap(tikv.raw_delete(r).await, ResponseCmd::RawDelete),
        RequestCmd::RawBatchPut(r) => wrap(tikv.raw_batch_put(r).await, ResponseCmd::RawBatchPut),
        RequestCmd::RawDeleteRange(r) => {
            wrap(tikv.raw_delete_range(r).await, ResponseCmd::RawDeleteRange)
        }
        RequestCmd::Write(r) => wrap(kv.write(r).await, ResponseCmd::Write),
        RequestCmd::Append(r) => wrap(kv.append(r).await, ResponseCmd::Append),
        RequestCmd::OpenSession(r) => wrap(kv.open_session(r).await, ResponseCmd::OpenSession),
        other => {
            let reason = format!("{other:?} has no unary form here");
            return Err(Broken { sent: false, reason });
        }
    };
    answer.map_err(|status| Broken { sent: true, reason: describe(&status) })
}

fn wrap<R>(
    answer: Result<Response<R>, Status>,
    cmd: fn(R) -> ResponseCmd,
) -> Result<ResponseCmd, Status> {
    answer.map(|response| cmd(response.into_inner()))
}
