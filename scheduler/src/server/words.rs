//! Numbers and states as the tools that read the pages expect them.

use std::fmt::Write as _;

use proto::metapb::{PeerRole, StoreState};

/// Upper-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02X}");
        text
    })
}

/// Whole MiB, at least 1 if there is anything.
pub(super) fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// Bytes with a unit, four digits at most: `1.968TiB`, `512B`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let step = bytes.ilog2() / 10;
    let value = bytes as f64 / f64::from(step * 10).exp2();
    let decimals = match value {
        value if value < 10.0 => 3,
        value if value < 100.0 => 2,
        value if value < 1000.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[step as usize - 1])
}

/// Unix milliseconds as `2026-11-20T14:00:00.123Z`.
pub(super) fn time(ms: u64) -> String {
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1000 % 60);
    let milli = in_day % 1000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// The Gregorian date this many days after 1970-01-01. Years begin in March, so the leap day is their last.
fn date(days: u64) -> (u64, u64, u64) {
    // Days of 400, 100, 4 and 1 years without the last one's leap day.
    const ERA: u64 = 146_097;
    const CENTURY: u64 = 36_524;
    const OLYMPIAD: u64 = 1_461;
    const YEAR: u64 = 365;
    let days = days + 719_468;
    let (era, in_era) = (days / ERA, days % ERA);
    let century = (in_era / CENTURY).min(3);
    let in_century = in_era - century * CENTURY;
    let (olympiad, in_olympiad) = (in_century / OLYMPIAD, in_century % OLYMPIAD);
    let year = (in_olympiad / YEAR).min(3);
    let in_year = in_olympiad - year * YEAR;
    // Five months, March to July and so on, always have 153 days.
    let march_month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = 400 * era + 100 * century + 4 * olympiad + year + u64::from(month <= 2);
    (year, month, day)
}

/// Milliseconds as `26h3m7.5s`.
pub(super) fn duration(ms: u64) -> String {
    let (hours, minutes, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms % 60_000);
    let seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A peer's role.
pub(super) fn role(role: PeerRole) -> &'static str {
    match role {
        PeerRole::Voter => "Voter",
        PeerRole::Learner => "Learner",
        PeerRole::IncomingVoter => "IncomingVoter",
        PeerRole::DemotingVoter => "DemotingVoter",
    }
}

/// A store's state.
pub(super) fn state(state: StoreState) -> &'static str {
    match state {
        StoreState::Up => "Up",
        StoreState::Offline => "Offline",
        StoreState::Tombstone => "Tombstone",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_tools_write_them() {
        let sizes = [0, 1023, 1024, 1536, 10 << 20, 2_164_663_517_184, 1023 << 20, u64::MAX];
        let texts = sizes.map(bytes);
        assert_eq!(
            texts,
            ["0B", "1023B", "1KiB", "1.5KiB", "10MiB", "1.969TiB", "1023MiB", "16EiB"]
        );
        assert_eq!([0, 1, 1 << 20, (1 << 20) + 1].map(mebibytes), [0, 1, 1, 2]);
    }

    #[test]
    fn times_are_dates() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(time(1_795_183_445_006), "2026-11-20T14:04:05.006Z");
        assert_eq!(time(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert_eq!([7_500, 90_000, 93_787_500].map(duration), ["7.5s", "1m30s", "26h3m7.5s"]);
    }

    #[test]
    fn keys_are_upper_case() {
        assert_eq!(hex(b"\x00z\xff"), "007AFF");
    }
}
