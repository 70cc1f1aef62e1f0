//! One seed, from its knobs to its verdict.

use super::call::Outcome;
use super::cluster::{CallOptions, Cluster, Notice, Setup};
use super::invariants::Broken;
use super::knobs::{Knobs, ReadMode};
use super::layout::Layout;
use super::report::Report;
use super::time::Nanos;
use super::trace::{TIMELINE_LINES_MAX, Timeline};
use super::workload::Workload;
use proto::ids::StoreId;
use raftstore::Config;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Election timeouts after the healing within which every region must serve again and every replica catch up.
const CONVERGENCE_ELECTIONS_MAX: u64 = 40;
/// How much longer that takes when a store was lost.
const REPLACEMENT_FACTOR: u64 = 10;
/// Two operators that the stores cannot carry out, one after the other, may stand in the way of a repair for so long.
const OPERATORS_MAX: Nanos = Nanos::secs(300);
/// Election timeouts of calm work after that.
const CALM_ELECTIONS: u64 = 6;
/// With fewer answered calls a run means nothing.
const OK_CALLS_MIN: u64 = 40;
/// The name of the wake-up that looks at the logs; clients wake by their own numbers.
const WAKE_CHECK: u64 = u64::MAX;

thread_local! {
    /// The last panic of this thread, with its place: the panic's value alone does not say where.
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// For a panic hook: keeps the text for the report of the run that panicked.
pub fn note_panic(text: &str) {
    LAST_PANIC.with(|last| *last.borrow_mut() = Some(text.to_owned()));
}

/// Runs a seed.
pub fn run(seed: u64) -> Report {
    run_with(seed, Timeline::none())
}

/// Runs a failed seed again for people: the timeline holds what happened before the failure, or around the operation that
/// a history cannot explain.
pub fn explain(failed: &Report) -> Report {
    let Some(focus) = failed.focus.clone() else {
        return run_with(failed.seed, Timeline::last(TIMELINE_LINES_MAX));
    };
    let focus = Some(focus);
    let mut report = run_with(failed.seed, Timeline { lines_max: usize::MAX, focus });
    let moment = failed.failure.as_deref().and_then(first_moment);
    let about = |line: &String| moment.as_ref().is_some_and(|moment| line.contains(moment));
    let lines = &mut report.timeline;
    if let Some(last) = lines.iter().rposition(about) {
        lines.truncate(last + TIMELINE_LINES_MAX / 8);
    }
    let surplus = lines.len().saturating_sub(TIMELINE_LINES_MAX / 2);
    lines.drain(..surplus);
    report
}

/// The first moment (`#123`) that a violation names, as the timeline writes it.
fn first_moment(failure: &str) -> Option<String> {
    let digits = failure.split('#').nth(1)?.chars().take_while(char::is_ascii_digit);
    Some(format!("#{} ", digits.collect::<String>()))
}

/// Runs a seed with a timeline.
pub fn run_with(seed: u64, timeline: Timeline) -> Report {
    let shared = RefCell::new(Report { seed, ..Report::default() });
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let mut run = Run::new(seed, timeline);
        // A panic must not lose what was seen so far, hence the report is filled by the run's own end.
        let _filled = Filled { run: &mut run, report: &shared };
        _filled.run.execute()
    }));
    let mut report = shared.into_inner();
    report.failure = match caught {
        Ok(Ok(())) => None,
        Ok(Err(broken)) => Some(broken.to_string()),
        Err(panic) => {
            let noted = LAST_PANIC.with(|last| last.borrow_mut().take());
            Some(format!("panic: {}", noted.unwrap_or_else(|| panic_text(&*panic))))
        }
    };
    report
}

/// Copies a run's end into the report, also when the run panics.
struct Filled<'a> {
    run: &'a mut Run,
    report: &'a RefCell<Report>,
}

impl Drop for Filled<'_> {
    fn drop(&mut self) {
        self.run.fill(&mut self.report.borrow_mut());
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without words".to_owned())
}

/// The configuration that the knobs stand for.
pub fn store_config(seed: u64, knobs: &Knobs) -> Config {
    let mut config = Config::new(1, StoreId::from(1));
    config.seed = seed;
    config.tick_ms = knobs.tick.0 / 1_000_000;
    config.heartbeat_ticks = knobs.heartbeat_interval_ticks;
    config.election_timeout_ticks = knobs.election_timeout_ticks;
    config.reads = match knobs.read_mode {
        ReadMode::ReadIndex => raftstore::config::ReadMode::ReadIndex,
        ReadMode::Lease | ReadMode::Mixed => raftstore::config::ReadMode::Lease,
    };
    config.clock_drift_percent_max = (knobs.drift_ppm_max / 10_000).max(1);
    config.lease_ms = config.lease_ms_max().max(1);
    config.append_bytes_max = knobs.message_entries_bytes_max.max(1);
    config.append_inflight_max = knobs.inflight_messages_max;
    config.apply_bytes_max = knobs.ready_committed_bytes_max;
    config.region_heartbeat_ticks = knobs.report_ticks.max(1);
    config.region_max_bytes = knobs.region_max_bytes;
    config.region_part_bytes = (knobs.region_max_bytes / 2).max(1);
    config.split_check_ticks = 4;
    config.hibernate_ticks = knobs.hibernate_ticks;
    config.sleeping_heartbeat_ticks = knobs.report_ticks * 8;
    config.stale_check_ticks = knobs.election_timeout_ticks * 2;
    config.merge_timeout_ticks = knobs.merge_timeout_ticks;
    config.snapshot_keep_ticks = knobs.election_timeout_ticks * 4;
    config.log_gc_ticks = 2;
    config.log_gc_count_limit = knobs.log_gc_entries;
    config.entry_cache_bytes_max = if seed.is_multiple_of(3) { 256 } else { 4 << 20 };
    config
}

struct Run {
    cluster: Cluster,
    workload: Workload,
    /// Clients go on calling.
    working: bool,
    /// The key a violation is about.
    focus: Option<String>,
    /// Calls answered since the count was last reset, by client.
    answered: Vec<u64>,
}

impl Run {
    fn new(seed: u64, timeline: Timeline) -> Run {
        let knobs = Knobs::draw(seed);
        let homes = (knobs.stores, knobs.replicas);
        let layout = Layout::new(homes, (knobs.regions, knobs.groups), knobs.keys);
        let workload = Workload::new(seed, &knobs, layout.clone());
        let store_config = store_config(seed, &knobs);
        let answered = vec![0; knobs.clients];
        let setup = Setup { seed, knobs, layout, store_config, timeline, record: true };
        Run { cluster: Cluster::new(setup), workload, working: true, focus: None, answered }
    }

    fn execute(&mut self) -> Result<(), Broken> {
        let election = self.cluster.knobs().election_timeout();
        for client in 0..self.workload.clients() {
            let pause = self.workload.pause();
            self.cluster.wake_after(election.times(2) + pause, client);
        }
        self.cluster.wake_after(election, WAKE_CHECK);
        self.work_for(election.times(2))?;
        self.cluster.begin_faults();
        self.work_for(self.cluster.knobs().fault_phase)?;

        self.cluster.heal()?;
        self.await_service(election)?;
        self.work_for(election.times(CALM_ELECTIONS))?;
        self.working = false;
        let limit = election.times(CONVERGENCE_ELECTIONS_MAX);
        self.await_that("every call ends", limit, |cluster| cluster.open_calls() == 0)?;
        for call in self.workload.final_reads() {
            self.cluster.submit(self.workload.clients(), call, CallOptions::default());
        }
        self.await_that("every read ends", limit, |cluster| cluster.open_calls() == 0)?;
        // To replace a lost store takes several steps, each of which waits for a report.
        let lost = self.cluster.counts.stores_lost > 0;
        let limit = if lost { limit.times(REPLACEMENT_FACTOR).max(OPERATORS_MAX) } else { limit };
        self.await_that("every replica catches up", limit, Cluster::has_converged)?;
        let data = self.cluster.audit()?;
        let checked = self.cluster.recorder.check(&data);
        checked.map_err(|(key, violation)| {
            self.focus = (!key.is_empty()).then(|| format!("{key:?}"));
            let what = format!("key {key:?}: {}", violation.what);
            Broken::new("I7 linearizable, I5 acknowledged writes survive", what)
        })?;
        let ok = self.cluster.recorder.counts.ok();
        if ok < OK_CALLS_MIN {
            let what = format!("only {ok} calls were answered; {OK_CALLS_MIN} are needed");
            return Err(Broken::new("void run", what));
        }
        Ok(())
    }

    /// Lets everything run for `span`.
    fn work_for(&mut self, span: Nanos) -> Result<(), Broken> {
        let end = self.cluster.now() + span;
        while let Some(notice) = self.cluster.run_until(end)? {
            self.noticed(notice)?;
        }
        Ok(())
    }

    fn noticed(&mut self, notice: Notice) -> Result<(), Broken> {
        match notice {
            Notice::Wake(WAKE_CHECK) => {
                self.cluster.check_logs()?;
                self.cluster.check_nodes()?;
                self.cluster.check_quorums()?;
                self.cluster.check_ids()?;
                self.cluster.watch_sleep();
                self.cluster.ask_timestamps(3);
                self.cluster.wake_after(self.cluster.knobs().tick.times(3), WAKE_CHECK);
            }
            Notice::Wake(client) if self.working => {
                let rest = self.cluster.idle_until.saturating_sub(self.cluster.now());
                match rest {
                    Nanos::ZERO => self.begin_call(client),
                    rest => self.cluster.wake_after(rest, client),
                }
            }
            Notice::Wake(_) => {}
            Notice::Done { client, call, outcome } => {
                if let Outcome::Refused(refusal) = &outcome {
                    let what = format!("{call:?} was refused: {refusal:?}");
                    return Err(Broken::new("exactly-once session", what));
                }
                if let Some(answered) = self.answered.get_mut(client as usize) {
                    *answered += u64::from(!matches!(outcome, Outcome::Unknown | Outcome::Failed));
                    let pause = self.workload.pause();
                    self.cluster.wake_after(pause, client);
                }
            }
        }
        Ok(())
    }

    fn begin_call(&mut self, client: u64) {
        let call = self.workload.next(client);
        let patience = self.cluster.knobs().election_timeout().times(6);
        let deadline = call.session().is_none().then(|| self.cluster.now() + patience);
        self.cluster.submit(client, call, CallOptions { deadline, ..CallOptions::default() });
    }

    /// Every client gets an answer to something it asked.
    fn await_service(&mut self, election: Nanos) -> Result<(), Broken> {
        self.answered.fill(0);
        let end = self.cluster.now() + election.times(CONVERGENCE_ELECTIONS_MAX);
        while self.answered.contains(&0) || !self.all_led() {
            match self.cluster.run_until(end)? {
                Some(notice) => self.noticed(notice)?,
                None => {
                    let what = format!(
                        "{CONVERGENCE_ELECTIONS_MAX} election timeouts after the faults ended, \
                         answered calls by client are {:?} and leaders {:?}",
                        self.answered,
                        self.leaders()
                    );
                    return Err(Broken::new("I14 liveness", what));
                }
            }
        }
        Ok(())
    }

    fn leaders(&self) -> Vec<Option<usize>> {
        let regions = self.cluster.regions();
        regions.iter().map(|region| self.cluster.leader_of(region.id)).collect()
    }

    fn all_led(&self) -> bool {
        self.leaders().iter().all(Option::is_some)
    }

    fn await_that(
        &mut self,
        what: &str,
        limit: Nanos,
        holds: impl Fn(&Cluster) -> bool,
    ) -> Result<(), Broken> {
        let end = self.cluster.now() + limit;
        while !holds(&self.cluster) {
            if self.cluster.now() >= end {
                let views = self.cluster.describe();
                let what = format!("not within {limit} of calm: {what}; {views}");
                return Err(Broken::new("I14 liveness", what));
            }
            self.work_for(self.cluster.knobs().tick)?;
        }
        Ok(())
    }

    fn fill(&mut self, report: &mut Report) {
        let cluster = &mut self.cluster;
        report.meetings = cluster.meetings().clone();
        report.hash = cluster.trace.hash();
        report.events = cluster.trace.events();
        report.virtual_time = cluster.now();
        report.counts = cluster.counts.clone();
        report.network = cluster.network_counts();
        report.calls = cluster.recorder.counts;
        let knobs = cluster.knobs();
        report.knobs = format!(
            "{} stores (and {}), {} schedulers, {} regions of {}, {} clients, tick {}, election {} ticks, log gc {}, reads {:?}, \
             drift {} ppm, loss {}‰",
            knobs.stores,
            knobs.spares,
            knobs.schedulers,
            knobs.regions,
            knobs.replicas,
            knobs.clients,
            knobs.tick,
            knobs.election_timeout_ticks,
            knobs.log_gc_entries,
            knobs.read_mode,
            knobs.drift_ppm_max,
            knobs.network.loss_per_mille,
        );
        report.focus = self.focus.clone();
        report.timeline = cluster.trace.lines().map(str::to_owned).collect();
    }
}
