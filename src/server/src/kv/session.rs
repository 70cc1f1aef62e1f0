//! Our own writes: `Write`, `OpenSession`, `Append`.
//!
//! A session makes a write exactly-once (Raft thesis §6.3): the client's id comes from the scheduler, its sequence number
//! grows by the client's hand, and a repetition gets the first answer. An append without a session is refused: applied
//! twice it would be wrong, and its client could not tell.

use proto::flotillapb::{
    self as wire, AppendRequest, AppendResponse, OpenSessionRequest, OpenSessionResponse,
    WriteRequest, WriteResponse,
};
use raftstore::RequestHeader;
use raftstore::command::{ClientId, Mutation, Request, Session, WriteResult};
use raftstore::keys::RawCf;

use super::keyspace::KeyForm;
use super::lists::check_range;
use super::{WriteVerb, address};
use crate::limits::{Refusal, check_value, check_write_bytes, check_write_count};

/// `Write`.
pub(crate) struct Write;

impl WriteVerb for Write {
    type Request = WriteRequest;
    type Response = WriteResponse;

    fn admit(request: WriteRequest) -> Result<(RequestHeader, Request), Refusal> {
        let WriteRequest { context, session, mutations } = request;
        let (header, form) = address(context)?;
        check_write_count("mutations", mutations.len())?;
        let session = session.map(check_session).transpose()?;
        let mut admitted = Vec::with_capacity(mutations.len());
        let mut bytes = 0;
        for mutation in mutations {
            let op = mutation.op.ok_or(Refusal::Missing { field: "mutations[].op" })?;
            let is_append = matches!(op, wire::mutation::Op::Append(_));
            if is_append && session.is_none() {
                return Err(Refusal::Missing { field: "session" });
            }
            let mutation = check_mutation(form, op)?;
            bytes += size_bytes(&mutation);
            admitted.push(mutation);
        }
        check_write_bytes("mutations", bytes)?;
        Ok((header, Request::Mutate { mutations: admitted, session }))
    }

    fn respond(result: WriteResult) -> WriteResponse {
        WriteResponse { region_error: None, result: Some(result.into()) }
    }
}

/// `OpenSession`.
pub(crate) struct OpenSession;

impl WriteVerb for OpenSession {
    type Request = OpenSessionRequest;
    type Response = OpenSessionResponse;

    fn admit(request: OpenSessionRequest) -> Result<(RequestHeader, Request), Refusal> {
        let OpenSessionRequest { context, client_id } = request;
        let (header, _) = address(context)?;
        if client_id == 0 {
            return Err(Refusal::Missing { field: "client_id" });
        }
        Ok((header, Request::OpenSession { client: ClientId(client_id) }))
    }

    fn respond(result: WriteResult) -> OpenSessionResponse {
        OpenSessionResponse { region_error: None, result: Some(result.into()) }
    }
}

/// `Append`.
pub(crate) struct Append;

impl WriteVerb for Append {
    type Request = AppendRequest;
    type Response = AppendResponse;

    fn admit(request: AppendRequest) -> Result<(RequestHeader, Request), Refusal> {
        let AppendRequest { context, session, cf, key, value } = request;
        let (header, form) = address(context)?;
        let session = check_session(session.ok_or(Refusal::Missing { field: "session" })?)?;
        let op = wire::mutation::Op::Append(wire::mutation::Append { cf, key, value });
        let mutations = vec![check_mutation(form, op)?];
        Ok((header, Request::Mutate { mutations, session: Some(session) }))
    }

    fn respond(result: WriteResult) -> AppendResponse {
        AppendResponse { region_error: None, result: Some(result.into()) }
    }
}

fn check_session(session: wire::Session) -> Result<Session, Refusal> {
    let wire::Session { client_id, sequence } = session;
    if client_id == 0 {
        return Err(Refusal::Missing { field: "session.client_id" });
    }
    if sequence == 0 {
        return Err(Refusal::Missing { field: "session.sequence" });
    }
    Ok(Session { client: ClientId(client_id), sequence })
}

fn check_mutation(form: KeyForm, op: wire::mutation::Op) -> Result<Mutation, Refusal> {
    use wire::mutation::{Append, Delete, DeleteRange, Op, Put};
    Ok(match op {
        Op::Put(Put { cf, key, value }) => {
            check_value("value", &value)?;
            Mutation::Put { cf: check_family(cf)?, key: form.key("key", key)?, value }
        }
        Op::Delete(Delete { cf, key }) => {
            Mutation::Delete { cf: check_family(cf)?, key: form.key("key", key)? }
        }
        Op::DeleteRange(DeleteRange { cf, start_key, end_key }) => {
            let (start, end) = check_range(form, start_key, end_key)?;
            Mutation::DeleteRange { cf: check_family(cf)?, start, end }
        }
        Op::Append(Append { cf, key, value }) => {
            check_value("value", &value)?;
            Mutation::Append { cf: check_family(cf)?, key: form.key("key", key)?, value }
        }
    })
}

fn check_family(number: i32) -> Result<RawCf, Refusal> {
    let family = u8::try_from(number).ok().and_then(RawCf::from_tag);
    family.ok_or(Refusal::Missing { field: "cf" })
}

fn size_bytes(mutation: &Mutation) -> usize {
    match mutation {
        Mutation::Put { key, value, .. } | Mutation::Append { key, value, .. } => {
            key.len() + value.len()
        }
        Mutation::Delete { key, .. } => key.len(),
        Mutation::DeleteRange { start, end, .. } => start.len() + end.len(),
    }
}
