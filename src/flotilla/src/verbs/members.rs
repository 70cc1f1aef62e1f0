//! `members`: the scheduler's processes.

use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Record;

/// Prints the members, and which of them leads.
pub(crate) async fn run(context: &mut Context) -> Result<(), Failure> {
    let members = context.admin().await?.members().await?;
    let leader = members.leader.map(|leader| leader.member_id);
    let record = |member: proto::pdpb::Member| {
        let leads = leader == Some(member.member_id);
        let role = if leads { "leader" } else { "member" };
        let urls = member.client_urls.join(" ");
        Record {
            cells: vec![member.member_id.to_string(), member.name.clone(), urls, role.to_owned()],
            json: json!({
                "id": member.member_id.to_string(),
                "name": member.name,
                "client_urls": member.client_urls,
                "leads": leads,
            }),
        }
    };
    let records = members.members.into_iter().map(record).collect();
    context.output.records(&["scheduler", "name", "address", "role"], records)
}
