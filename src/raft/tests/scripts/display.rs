//! Nodes, messages and Readies in one line each.

use std::fmt::Write as _;

use raft::{
    ConfState, Entry, MemStorage, Message, MessageBody, NodeId, RawNode, Ready, Role, Status, wire,
};

fn ids(ids: &[NodeId]) -> String {
    ids.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(",")
}

pub(crate) fn conf_state(state: &ConfState) -> String {
    let mut out = format!("{{{}", ids(&state.voters));
    if !state.voters_outgoing.is_empty() {
        write!(out, " from {}", ids(&state.voters_outgoing)).unwrap();
    }
    if !state.learners.is_empty() {
        write!(out, " learners {}", ids(&state.learners)).unwrap();
    }
    if !state.learners_next.is_empty() {
        write!(out, " next {}", ids(&state.learners_next)).unwrap();
    }
    out + if state.auto_leave { " auto}" } else { "}" }
}

pub(crate) fn entry(entry: &Entry) -> String {
    let position = format!("{}:{}", entry.index, entry.term);
    if entry.kind.is_conf_change() {
        let change = wire::decode_conf_change(entry).expect("a change we encoded");
        let changes = change.changes.iter().map(|c| format!("{:?} {}", c.kind, c.node));
        let changes = changes.collect::<Vec<_>>().join(", ");
        return format!("{position} <{}>", if changes.is_empty() { "leave" } else { &changes });
    }
    match entry.data.len() {
        0 => format!("{position} -"),
        1..=20 => format!("{position} {}", String::from_utf8_lossy(&entry.data)),
        bytes => format!("{position} {bytes} bytes"),
    }
}

fn entry_list(entries: &[Entry]) -> String {
    let list: Vec<String> = entries.iter().map(entry).collect();
    format!("[{}]", list.join(", "))
}

pub(crate) fn entries(raw: &RawNode<MemStorage>) -> String {
    let log = raw.log();
    let found = log.entries(log.first_index(), log.last_index().next(), u64::MAX);
    format!("{}\n", entry_list(&found.expect("the whole log")))
}

fn context(bytes: &[u8]) -> String {
    match bytes.len() {
        0 => String::new(),
        16 => {
            let round = u64::from_be_bytes(bytes[8..].try_into().unwrap());
            format!(" round {round}")
        }
        1..16 => format!(" {}", String::from_utf8_lossy(bytes)),
        _ => format!(" {}", String::from_utf8_lossy(&bytes[16..])),
    }
}

pub(crate) fn message(message: &Message) -> String {
    let name = message.body.name();
    let what = match &message.body {
        MessageBody::Propose(entries) => entry_list(entries),
        MessageBody::Append(append) => format!(
            "after {}:{} {} commit {}",
            append.prev_index,
            append.prev_term,
            entry_list(&append.entries),
            append.commit
        ),
        MessageBody::AppendResponse(response) => match response.reject {
            _ if response.request_snapshot.0 > 0 => {
                format!("wants a snapshot at {}", response.request_snapshot)
            }
            Some(reject) => format!(
                "rejects {}, try {}:{}",
                response.index, reject.hint_index, reject.hint_term
            ),
            None => format!("has {}", response.index),
        },
        MessageBody::RequestVote(request) | MessageBody::RequestPreVote(request) => {
            let transfer = if request.transfer { " transfer" } else { "" };
            format!("last {}:{}{transfer}", request.last_index, request.last_term)
        }
        MessageBody::RequestVoteResponse(response)
        | MessageBody::RequestPreVoteResponse(response) => {
            if response.reject {
                "no".into()
            } else {
                "yes".into()
            }
        }
        MessageBody::Snapshot(snapshot) => {
            let members = conf_state(&snapshot.conf_state);
            format!("{}:{} {members}", snapshot.index, snapshot.term)
        }
        MessageBody::Heartbeat { commit, context: bytes }
        | MessageBody::HeartbeatResponse { commit, context: bytes } => {
            format!("commit {commit}{}", context(bytes))
        }
        MessageBody::TransferLeader | MessageBody::TimeoutNow => String::new(),
        MessageBody::ReadIndex { context: bytes } => context(bytes),
        MessageBody::ReadIndexResponse { index, context: bytes } => {
            format!("{index}{}", context(bytes))
        }
    };
    let (from, to, term) = (message.from, message.to, message.term);
    format!("{from}→{to} t{term} {name} {what}").trim_end().to_string()
}

pub(crate) fn ready(ready: &Ready) -> String {
    let mut out = format!("ready {}", ready.number);
    out += if ready.must_sync { " (sync)\n" } else { "\n" };
    if let Some(soft) = ready.soft_state {
        let leader = soft.leader.map_or("none".into(), |id| id.0.to_string());
        writeln!(out, "  {:?}, leader {leader}", soft.role).unwrap();
    }
    if let Some(hard) = ready.hard_state {
        let vote = hard.vote.map_or("none".into(), |id| id.0.to_string());
        writeln!(out, "  term {} vote {vote} commit {}", hard.term, hard.commit).unwrap();
    }
    if let Some(snapshot) = &ready.snapshot {
        let members = conf_state(&snapshot.conf_state);
        writeln!(out, "  snapshot {}:{} {members}", snapshot.index, snapshot.term).unwrap();
    }
    if !ready.entries.is_empty() {
        writeln!(out, "  write {}", entry_list(&ready.entries)).unwrap();
    }
    if !ready.committed_entries.is_empty() {
        writeln!(out, "  apply {}", entry_list(&ready.committed_entries)).unwrap();
    }
    out += &reads(ready);
    for sent in &ready.messages {
        writeln!(out, "  now   {}", message(sent)).unwrap();
    }
    for sent in &ready.persisted_messages {
        writeln!(out, "  later {}", message(sent)).unwrap();
    }
    out
}

pub(crate) fn reads(ready: &Ready) -> String {
    let mut out = String::new();
    for read in &ready.read_states {
        let context = String::from_utf8_lossy(&read.context);
        writeln!(out, "  read {context} at {}", read.index).unwrap();
    }
    for context in &ready.dropped_reads {
        writeln!(out, "  read {} dropped", String::from_utf8_lossy(context)).unwrap();
    }
    out
}

pub(crate) fn status(status: &Status) -> String {
    let role = match status.role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    };
    let name = |id: Option<NodeId>| id.map_or("-".into(), |id| id.0.to_string());
    format!(
        "n{} {role} t{} vote {} leader {} log {}..{}:{} disk {} commit {} applied {} {}",
        status.id,
        status.term,
        name(status.vote),
        name(status.leader),
        status.first_index,
        status.last_index,
        status.last_term,
        status.persisted,
        status.commit,
        status.applied,
        conf_state(&status.conf_state),
    )
}

pub(crate) fn progress(status: &Status) -> String {
    let mut out = String::new();
    for member in &status.progress {
        let state = format!("{:?}", member.state).to_lowercase();
        write!(out, "n{} {state} match {} next {}", member.id, member.matched, member.next)
            .unwrap();
        if member.inflight_messages > 0 {
            let (messages, bytes) = (member.inflight_messages, member.inflight_bytes);
            write!(out, " in flight {messages} ({bytes} bytes)").unwrap();
        }
        if member.pending_snapshot.0 > 0 {
            write!(out, " snapshot {}", member.pending_snapshot).unwrap();
        }
        let flags = [(member.paused, " paused"), (member.is_learner, " learner")];
        for (_, name) in flags.iter().filter(|(set, _)| *set) {
            out += name;
        }
        out += "\n";
    }
    out
}
