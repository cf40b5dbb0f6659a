//! `turn-metrics check`, `check --repair` and `compact` on files with damaged bytes.

use std::fs;
use std::path::Path;
use std::process::Output;

use crate::server::turn_metrics;

/// The number of damaged files in a run of the test. `TURN_METRICS_TEST_DAMAGES` sets another number.
const DAMAGES: usize = 40;

const FILES: [&str; 2] = ["turn-metrics.redb", "turn-metrics.journal.redb"];

fn run(args: &[&str], directory: &Path) -> (i32, String, Output) {
    let output = turn_metrics().args(args).arg("--data-dir").arg(directory).output().unwrap();
    let told = [&*output.stdout, &*output.stderr].concat();
    let told = String::from_utf8(told).unwrap();
    (output.status.code().unwrap(), told, output)
}

/// Damages the files of a killed server. Every other file gets one flipped bit; in the others some bytes are zeros.
#[test]
fn damaged_files_are_told_in_words_refused_by_compact_and_repaired() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let images = ["format-1.redb", "format-1.journal.redb"].map(|name| fs::read(fixtures.join(name)).unwrap());
    let damages = std::env::var("TURN_METRICS_TEST_DAMAGES").map_or(DAMAGES, |number| number.parse().unwrap());
    let mut found = 0;
    for nth in 0..damages {
        let mut images = images.clone();
        let image = &mut images[nth / 2 % 2];
        // The first bytes are those of the header. Most pages of so small a file are blank.
        let used: Vec<_> = (0..image.len() - 64).filter(|at| image[*at] != 0).collect();
        let at = if nth < 4 { 3 + 67 * nth } else { used[(nth * 7919 * 61) % used.len()] };
        if nth % 2 == 0 {
            image[at] ^= 4;
        } else {
            image[at..at + 40].fill(0);
        }
        let directory = tempfile::tempdir().unwrap();
        for (name, image) in FILES.iter().zip(&images) {
            fs::write(directory.path().join(name), image).unwrap();
        }
        let (checked, told, of_check) = run(&["check"], directory.path());
        let assert_in_words = |told: &str| {
            assert!(!told.contains("panic") && !told.contains("RUST_BACKTRACE"), "byte {at}: {told}");
        };
        assert_in_words(&told);
        let (expected_of_compact, expected) = match checked {
            0 => (0, 0),
            2 => (1, 1),
            code => panic!("byte {at}: {code}: {told}"),
        };
        if checked == 2 {
            found += 1;
            assert!(told.contains("`turn-metrics check --repair` repairs this"), "byte {at}: {told}");
            let (compacted, told, _) = run(&["compact"], directory.path());
            assert_eq!(compacted, expected_of_compact, "byte {at}: {told}");
            assert!(told.contains("check --repair"), "byte {at}: {told}");
            assert_in_words(&told);
        }
        let (repaired, told, output) = run(&["check", "--repair"], directory.path());
        assert_eq!(repaired, expected, "byte {at}: {told}");
        assert_in_words(&told);
        // The repair names what the check names, and then what is lost.
        let [found_by_check, printed] = [of_check, output].map(|output| String::from_utf8(output.stdout).unwrap());
        let rest = printed.strip_prefix(&found_by_check).unwrap_or_else(|| panic!("byte {at}: {printed}"));
        assert!(rest.lines().all(|line| line.starts_with("lost: ")), "byte {at}: {printed}");
        if checked == 2 {
            for (name, image) in FILES.iter().zip(&images) {
                let kept = fs::read(directory.path().join(format!("{name}.before-repair-1"))).unwrap();
                assert!(kept == *image, "byte {at}: {name} was not kept as it was");
            }
        }
        let (again, told, _) = run(&["check"], directory.path());
        assert_eq!(again, 0, "byte {at}: {told}");
    }
    assert!(found * 10 > damages, "only {found} of {damages} files were damaged");
}
