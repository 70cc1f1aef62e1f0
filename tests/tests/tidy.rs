//! Style as a test: what a reader would notice after the fact is refused before it lands.
//!
//! Every source file starts with a header that tells its design, stays small, and has a name that says what it holds. The
//! list of exceptions is empty and may only stay so. Function length, banned calls and unsafe code are clippy's and rustc's
//! part (`clippy.toml`, `[workspace.lints]`).
#![expect(clippy::unwrap_used, reason = "a test: a file that cannot be read is a failure")]

use std::fs;
use std::path::{Path, PathBuf};

/// The most lines a source file may have, tests included.
const FILE_LINES_MAX: usize = 600;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn collect(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, extension, found);
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(&workspace(), "rs", &mut found);
    assert!(
        found.len() > 50,
        "the walk found only {} files: it looks in the wrong place",
        found.len()
    );
    found.sort();
    found
}

/// What is wrong with one source file, in words.
fn complaints(path: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        found.push(format!("{lines} lines; the limit is {FILE_LINES_MAX}: split by role or verb"));
    }
    if !text.starts_with("//!") {
        found.push("no module header: begin with `//!` and say what the file is for".to_owned());
    }
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    if EMPTY_NAMES.contains(&stem.as_str()) {
        found.push(format!("the name `{stem}` says nothing"));
    }
    for (at, line) in text.lines().enumerate() {
        let code = line.trim_start();
        if code.starts_with("//") {
            continue;
        }
        // In two halves, so that these lines do not accuse themselves.
        if ["todo", "unimplemented"].iter().any(|name| code.contains(&format!("{name}!("))) {
            found.push(format!("line {}: unfinished code", at + 1));
        }
        if code.starts_with(&["#[", "ignore"].concat()) {
            found.push(format!("line {}: a test that does not run", at + 1));
        }
    }
    found
}

#[test]
fn sources_are_small_named_and_headed() {
    let root = workspace();
    let mut all = Vec::new();
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let shown = path.strip_prefix(&root).unwrap().display().to_string();
        all.extend(complaints(&path, &text).into_iter().map(|c| format!("{shown}: {c}")));
    }
    assert!(all.is_empty(), "\n{}", all.join("\n"));
}

#[test]
fn the_check_itself_finds_planted_faults() {
    let long = "//! header\n".to_owned() + &"x\n".repeat(FILE_LINES_MAX);
    assert_eq!(complaints(Path::new("log.rs"), &long).len(), 1);
    assert_eq!(complaints(Path::new("log.rs"), "fn main() {}\n").len(), 1);
    assert_eq!(complaints(Path::new("util.rs"), "//! header\n").len(), 1);
    let unfinished = format!("//! header\nfn f() {{ {}() }}\n", "todo!");
    assert_eq!(complaints(Path::new("log.rs"), &unfinished).len(), 1);
    assert_eq!(complaints(Path::new("log.rs"), "//! header\n"), Vec::<String>::new());
}

#[test]
fn nothing_can_fail_in_silence() {
    for name in ["Makefile", ".ci/run", "scripts/deps"] {
        let text = fs::read_to_string(workspace().join(name)).unwrap();
        assert!(!text.contains(&["|| ", "true"].concat()), "{name} hides a failure");
    }
}
