//! The scheduler's admin service, `flotilla.Operations`: always asked of the member that leads.
//!
//! A call that cannot be delivered is repeated, at whoever leads by then, until the time budget is used up. A refusal is
//! final and carries the scheduler's reason; what is not there is told apart from it, by the exit code.

use std::time::{Duration, Instant};

use client::Error;
use proto::flotillapb::operations_client::OperationsClient;
use proto::flotillapb::{
    AddOperatorResponse, BalanceResponse, CancelOperatorResponse, ChangeStoreResponse,
    ConfigResponse, ListOperatorsResponse, ListRegionsResponse, ListStoresResponse,
};
use proto::pdpb::pd_client::PdClient;
use proto::pdpb::{
    ErrorType, GetMembersRequest, GetMembersResponse, RequestHeader, ResponseHeader,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::failure::Failure;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(150);
/// One question to one member.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// Lists of many regions are long.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A connection to the scheduler's members.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    endpoints: Vec<String>,
    cluster_id: u64,
    budget: Duration,
}

/// A client of the leader, and the header of every request.
pub(crate) type Operations = OperationsClient<Channel>;

/// A response with a header.
pub(crate) trait Headed {
    /// Takes it out.
    fn take_header(&mut self) -> Option<ResponseHeader>;
}

macro_rules! headed {
    ($($response:ty),+ $(,)?) => {
        $(impl Headed for $response {
            fn take_header(&mut self) -> Option<ResponseHeader> {
                self.header.take()
            }
        })+
    };
}

headed!(
    AddOperatorResponse,
    BalanceResponse,
    CancelOperatorResponse,
    ChangeStoreResponse,
    ConfigResponse,
    ListOperatorsResponse,
    ListRegionsResponse,
    ListStoresResponse,
);

impl Admin {
    /// Finds a member behind `endpoints` that answers.
    pub(crate) async fn connect(endpoints: &[String], budget: Duration) -> Result<Admin, Failure> {
        let mut admin = Admin { endpoints: endpoints.to_vec(), cluster_id: 0, budget };
        let members = admin.members().await?;
        admin.cluster_id = members.header.as_ref().map_or(0, |header| header.cluster_id);
        for member in &members.members {
            for url in &member.client_urls {
                let address = host_port(url);
                if !admin.endpoints.contains(&address) {
                    admin.endpoints.push(address);
                }
            }
        }
        Ok(admin)
    }

    /// The header of every request.
    pub(crate) fn header(&self) -> Option<RequestHeader> {
        Some(RequestHeader { cluster_id: self.cluster_id, sender_id: 0 })
    }

    /// Who the members are, as the first that answers knows it.
    pub(crate) async fn members(&self) -> Result<GetMembersResponse, Failure> {
        let mut failures = Vec::new();
        for endpoint in &self.endpoints {
            let question = async {
                let mut client = PdClient::new(open(endpoint)?);
                let answer = client.get_members(GetMembersRequest::default()).await;
                Ok(answer.map_err(|status| describe(&status))?.into_inner())
            };
            match timed(question).await {
                Ok(members) => {
                    accept(members.header.as_ref())?;
                    return Ok(members);
                }
                Err(reason) => failures.push(format!("{endpoint}: {reason}")),
            }
        }
        Err(Failure::Client(Error::Unreachable(failures.join("; "))))
    }

    /// Asks the leader, and again while nobody leads.
    pub(crate) async fn ask<R, F>(&self, question: impl Fn(Operations) -> F) -> Result<R, Failure>
    where
        R: Headed,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        #[expect(clippy::disallowed_methods, reason = "the user's time budget")]
        let started = Instant::now();
        loop {
            let reason = match self.attempt(&question).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Client(Error::Unreachable(reason))) => reason,
                Err(other) => return Err(other),
            };
            if started.elapsed() + PAUSE >= self.budget {
                return Err(Failure::Client(Error::Unreachable(reason)));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn attempt<R, F>(&self, question: impl Fn(Operations) -> F) -> Result<R, Failure>
    where
        R: Headed,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let members = self.members().await?;
        let leader = members.leader.iter().flat_map(|leader| &leader.client_urls).next();
        let unreachable = |reason| Failure::Client(Error::Unreachable(reason));
        let leader = leader.ok_or_else(|| unreachable("no scheduler leads now".to_owned()))?;
        let address = host_port(leader);
        let channel = open(&address).map_err(unreachable)?;
        let client = OperationsClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let answer = tokio::time::timeout(ASK_TIMEOUT, question(client)).await;
        let mut answer = match answer {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) if status.code() == Code::Unimplemented => {
                let reason = format!("the scheduler at {address} is too old for this");
                return Err(Failure::Client(Error::Refused(reason)));
            }
            Ok(Err(status)) => {
                return Err(unreachable(format!("{address}: {}", describe(&status))));
            }
            Err(_) => {
                return Err(unreachable(format!("{address}: no answer within {ASK_TIMEOUT:?}")));
            }
        };
        accept(answer.take_header().as_ref())?;
        Ok(answer)
    }
}

/// A lazily made connection to host:port.
pub(crate) fn open(address: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{}", host_port(address)));
    let endpoint = endpoint.map_err(|error| format!("'{address}' is no address: {error}"))?;
    Ok(endpoint.connect_timeout(Duration::from_secs(1)).tcp_nodelay(true).connect_lazy())
}

/// What a status says, in a line.
pub(crate) fn describe(status: &Status) -> String {
    match status.message() {
        "" => format!("{:?}", status.code()),
        message => message.to_owned(),
    }
}

async fn timed<T>(question: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match tokio::time::timeout(ASK_TIMEOUT, question).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {ASK_TIMEOUT:?}")),
    }
}

fn accept(header: Option<&ResponseHeader>) -> Result<(), Failure> {
    let Some(error) = header.and_then(|header| header.error.as_ref()) else { return Ok(()) };
    Err(match error.r#type() {
        ErrorType::RegionNotFound | ErrorType::EntryNotFound => {
            Failure::NotFound(error.message.clone())
        }
        _ => Failure::Client(Error::Refused(error.message.clone())),
    })
}

/// `http://host:port/` as host:port.
fn host_port(url: &str) -> String {
    let bare = url.split_once("://").map_or(url, |(_, rest)| rest);
    bare.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: ErrorType) -> Failure {
        let error = proto::pdpb::Error { r#type: kind as i32, message: "no".to_owned() };
        let header = ResponseHeader { cluster_id: 1, error: Some(error) };
        accept(Some(&header)).expect_err("an error")
    }

    #[test]
    fn what_is_absent_and_what_is_refused_have_different_codes() {
        assert_eq!(refused(ErrorType::RegionNotFound).code(), 3);
        assert_eq!(refused(ErrorType::EntryNotFound).code(), 3);
        assert_eq!(refused(ErrorType::InvalidValue).code(), 1);
        assert!(refused(ErrorType::Unknown).to_string().contains("no"));
        assert!(accept(Some(&ResponseHeader::default())).is_ok());
    }
}
