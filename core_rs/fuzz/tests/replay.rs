//! Every input of the corpus, and each that once found a bug, through every target, without libFuzzer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, panic};

use smtp_proxy_fuzz::targets;

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What lies in it, in order.
fn inside(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
}

fn names(folder: &Path) -> BTreeSet<String> {
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    inside(folder).iter().map(stem).collect()
}

fn replay(folder: &Path) -> usize {
    let mut replayed = 0;
    for set in inside(folder).iter().filter(|path| path.is_dir()) {
        for file in inside(set) {
            let input = fs::read(&file).unwrap();
            for (name, run) in targets::ALL {
                if panic::catch_unwind(|| run(&input)).is_err() {
                    panic!("{} fails the target {name}", file.display());
                }
            }
            replayed += 1;
        }
    }
    replayed
}

#[test]
fn the_corpus_holds() {
    assert!(replay(&here("corpus")) > 200);
}

/// `regressions/<target>/<what it was>`: inputs that once found a bug.
#[test]
fn what_was_mended_stays_mended() {
    replay(&here("regressions"));
}

#[test]
fn every_target_is_listed_and_has_a_corpus() {
    let listed: BTreeSet<_> = targets::ALL
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(names(&here("fuzz_targets")), listed);
    assert_eq!(names(&here("src/targets")), listed);
    let manifest = fs::read_to_string(here("Cargo.toml")).unwrap();
    for name in &listed {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")));
    }
    // A target `x_split` looks at what `x` looks at.
    let without = listed
        .iter()
        .map(|name| name.trim_end_matches("_split").to_owned());
    assert_eq!(names(&here("corpus")), without.collect());
}

#[test]
fn the_corpus_stays_small() {
    let mut bytes = 0;
    for set in inside(&here("corpus")) {
        let files = inside(&set);
        // About 200 of them, and room for the dialogs to come.
        assert!(files.len() <= 300, "{}", set.display());
        bytes += files
            .iter()
            .map(|file| fs::metadata(file).unwrap().len())
            .sum::<u64>();
    }
    assert!(bytes <= 1 << 20, "{bytes} bytes");
}
