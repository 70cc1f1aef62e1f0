//! What Linux says about processor time, of processes and of the machine.

use std::fs;

/// Clock ticks per second in `/proc`: 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process id.
pub(super) type Pid = u32;

/// Processor time, user and system, that a process has used so far, in seconds. Nothing when it has ended.
fn cpu_seconds(pid: Pid) -> f64 {
    let Some(stat) = Stat::read(pid) else { return 0.0 };
    stat.cpu_ticks as f64 / TICKS_PER_SECOND
}

/// Memory of a process that is not swapped out, in KiB. Zero when it has ended.
pub(super) fn resident_kib(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

struct Stat {
    cpu_ticks: u64,
}

impl Stat {
    fn read(pid: Pid) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name, in parentheses, may itself hold blanks and parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self { cpu_ticks: number(11)? + number(12)? })
    }
}

/// Processor time that the machine has spent not idle, in seconds, over all processors.
fn machine_busy_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|t| t.parse().ok()).collect();
    // user nice system idle iowait irq softirq
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|&index| ticks.get(index)).sum();
    busy as f64 / TICKS_PER_SECOND
}

/// Measures processor time over a span: of some processes, and of everybody else.
#[derive(Debug)]
pub(super) struct CpuMeter {
    ours: Vec<(Pid, f64)>,
    bystanders: Vec<(Pid, f64)>,
    machine: f64,
}

/// What a [`CpuMeter`] saw.
#[derive(Clone, Copy, Debug)]
pub(super) struct CpuUse {
    /// Seconds used by the measured processes.
    pub(super) seconds: f64,
    /// Seconds used by others than the measured ones and the bystanders: noise.
    pub(super) other_seconds: f64,
}

impl CpuMeter {
    /// Begins. `measured` does the work; `bystanders` belong to the benchmark but are idle in this span.
    pub(super) fn start(measured: &[Pid], bystanders: &[Pid]) -> Self {
        let read = |pids: &[Pid]| pids.iter().map(|&pid| (pid, cpu_seconds(pid))).collect();
        let bystanders: Vec<Pid> =
            bystanders.iter().copied().filter(|pid| !measured.contains(pid)).collect();
        let machine = machine_busy_seconds();
        Self { ours: read(measured), bystanders: read(&bystanders), machine }
    }

    /// Ends.
    pub(super) fn stop(&self) -> CpuUse {
        let used = |pids: &[(Pid, f64)]| -> f64 {
            pids.iter().map(|&(pid, before)| (cpu_seconds(pid) - before).max(0.0)).sum()
        };
        let seconds = used(&self.ours);
        let all = machine_busy_seconds() - self.machine;
        let other_seconds = (all - seconds - used(&self.bystanders)).max(0.0);
        CpuUse { seconds, other_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stat_lines_of_strangely_named_processes() {
        let line = "17 (a) b (c)) S 5 17 17 0 -1 4194560 1 0 0 0 120 30 0 0 20 0 1 0 1 1";
        let stat = Stat::parse(line).expect("a stat line");
        assert_eq!(stat.cpu_ticks, 150);
    }

    #[test]
    fn a_busy_process_is_seen_to_be_busy() {
        const ENOUGH: u64 = 100_000;
        let this = std::process::id();
        let meter = CpuMeter::start(&[this], &[]);
        let mut sum = 1_u64;
        // Ends long before the limit: two ticks of the clock are enough.
        let seen = (0..ENOUGH).any(|round| {
            sum = (0..20_000).fold(sum, |sum, n| sum.wrapping_mul(31).wrapping_add(n ^ round));
            meter.stop().seconds >= 0.02
        });
        assert!(seen, "no processor time was seen while computing {sum}");
    }
}
