//! Which verb serves which command of a `BatchCommands` stream.

use std::sync::Arc;

use proto::kvrpcpb::{RawCoprocessorRequest, RawCoprocessorResponse};
use proto::tikvpb::batch_commands_request::request::Cmd;
use proto::tikvpb::{BatchCommandsEmptyRequest, BatchCommandsEmptyResponse};
use tonic::Status;

use super::batch::Slot;
use super::lists::{BatchDelete, BatchGet, BatchPut, DeleteRange};
use super::point::{Delete, Get, Put};
use super::queue::{AnswerQueue, ResponseCmd};
use super::scan::{BatchScan, Scan};
use super::session::{Append, OpenSession, Write};
use super::sink::Sink;
use super::{Verbs, unsupported};

/// Starts the command `cmd`, which is to be answered under `id` through `queue`.
pub(crate) fn dispatch(
    verbs: &Verbs,
    queue: &Arc<AnswerQueue>,
    id: u64,
    cmd: Cmd,
) -> Result<(), Status> {
    use ResponseCmd as R;
    let unserved = |name| Err(unsupported(name));
    match cmd {
        Cmd::RawGet(r) => verbs.read::<Get>(r, Slot::new(queue, id, R::RawGet)),
        Cmd::RawPut(r) => verbs.write::<Put>(r, Slot::new(queue, id, R::RawPut)),
        Cmd::RawDelete(r) => verbs.write::<Delete>(r, Slot::new(queue, id, R::RawDelete)),
        Cmd::RawBatchGet(r) => verbs.read::<BatchGet>(r, Slot::new(queue, id, R::RawBatchGet)),
        Cmd::RawBatchPut(r) => verbs.write::<BatchPut>(r, Slot::new(queue, id, R::RawBatchPut)),
        Cmd::RawBatchDelete(r) => {
            verbs.write::<BatchDelete>(r, Slot::new(queue, id, R::RawBatchDelete));
        }
        Cmd::RawScan(r) => verbs.read::<Scan>(r, Slot::new(queue, id, R::RawScan)),
        Cmd::RawBatchScan(r) => verbs.read::<BatchScan>(r, Slot::new(queue, id, R::RawBatchScan)),
        Cmd::RawDeleteRange(r) => {
            verbs.write::<DeleteRange>(r, Slot::new(queue, id, R::RawDeleteRange));
        }
        Cmd::RawCoprocessor(r) => {
            Slot::new(queue, id, R::RawCoprocessor).answer(coprocessor(&r));
        }
        Cmd::Write(r) => verbs.write::<Write>(r, Slot::new(queue, id, R::Write)),
        Cmd::Append(r) => verbs.write::<Append>(r, Slot::new(queue, id, R::Append)),
        Cmd::OpenSession(r) => verbs.write::<OpenSession>(r, Slot::new(queue, id, R::OpenSession)),
        Cmd::Empty(BatchCommandsEmptyRequest { test_id, delay_time: _ }) => {
            // Answered at once: what it measures is the stream.
            let response = BatchCommandsEmptyResponse { test_id };
            queue.push(id, R::Empty(response), size_of::<u64>());
        }
        Cmd::Get(_) => return unserved("Get"),
        Cmd::Scan(_) => return unserved("Scan"),
        Cmd::Prewrite(_) => return unserved("Prewrite"),
        Cmd::Commit(_) => return unserved("Commit"),
        Cmd::BatchGet(_) => return unserved("BatchGet"),
        Cmd::BatchRollback(_) => return unserved("BatchRollback"),
        Cmd::ScanLock(_) => return unserved("ScanLock"),
        Cmd::ResolveLock(_) => return unserved("ResolveLock"),
        Cmd::PessimisticLock(_) => return unserved("PessimisticLock"),
        Cmd::PessimisticRollback(_) => return unserved("PessimisticRollback"),
        Cmd::CheckTxnStatus(_) => return unserved("CheckTxnStatus"),
        Cmd::TxnHeartBeat(_) => return unserved("TxnHeartBeat"),
        Cmd::CheckSecondaryLocks(_) => return unserved("CheckSecondaryLocks"),
    }
    Ok(())
}

/// The answer to every coprocessor request.
pub(crate) fn coprocessor(request: &RawCoprocessorRequest) -> RawCoprocessorResponse {
    let name: String = request.copr_name.chars().take(64).collect();
    let error = format!("no coprocessor {name:?} is installed on this store");
    RawCoprocessorResponse { error, ..RawCoprocessorResponse::default() }
}
