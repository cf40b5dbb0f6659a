use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use super::done;
use crate::server::{Server, turn_metrics};

/// Returns the program with an umask under which new files are readable by everybody, unless the program prevents it.
fn without_umask() -> Command {
    let program = turn_metrics();
    let mut command = Command::new("sh");
    command.args(["-c", "umask 0 && exec \"$0\" \"$@\""]).arg(program.get_program());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Asserts that only the owner may use each file and directory in this one. Returns their number.
fn assert_private(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            let (metadata, expected) = (fs::metadata(&path).unwrap(), if path.is_dir() { 0o700 } else { 0o600 });
            assert_eq!(metadata.permissions().mode() & 0o777, expected, "{}", path.display());
            1 + if metadata.is_dir() { assert_private(&path) } else { 0 }
        })
        .sum()
}

#[test]
fn all_created_files_are_readable_only_by_their_owner() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("new/data");
    let spans = root.path().join("logs/spans.ndjson");
    let settings = [("SPAN_LOG__FILE", spans.to_str().unwrap()), ("SPAN_LOG__MAX_FILE_BYTES", "1024")];
    let server = Server::start_by(without_umask(), &data, &settings);
    for turn in 0..10 {
        assert_eq!(server.client().post_events(&done("c", &turn.to_string())).status, 200);
    }
    let run = |args: &[&str], status: i32| {
        let output = without_umask().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["backup", "--server", &server.url(), root.path().join("copy.redb").to_str().unwrap()], 0);
    assert!(assert_private(root.path()) >= 7, "directories, the database and its journal, a backup, span logs");
    server.signal("TERM");
    assert!(server.wait().0.success());

    let data = data.to_str().unwrap();
    run(&["compact", "--data-dir", data], 0);
    run(&["check", "--data-dir", data], 0);
    assert!(assert_private(root.path()) >= 6);

    // Control: a file that is created without the program's care is open to everybody.
    let made = without_umask_file(root.path());
    assert_eq!(made & 0o777, 0o666);
}

#[test]
fn a_compaction_keeps_the_permissions_that_an_operator_has_chosen() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().to_str().unwrap();
    let server = Server::start_by(without_umask(), root.path(), &[]);
    assert_eq!(server.client().post_events(&done("c", "t")).status, 200);
    server.signal("TERM");
    assert!(server.wait().0.success());
    let database = root.path().join("turn-metrics.redb");
    let mode = || fs::metadata(&database).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    for chosen in [0o640, 0o600] {
        fs::set_permissions(&database, fs::Permissions::from_mode(chosen)).unwrap();
        let before = fs::metadata(&database).unwrap().ino();
        assert!(without_umask().args(["compact", "--data-dir", data]).output().unwrap().status.success());
        assert_ne!(fs::metadata(&database).unwrap().ino(), before, "it is a new file");
        assert_eq!(mode(), chosen);
    }
}

#[test]
fn the_directory_of_the_demonstration_is_open_only_to_its_owner() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = without_umask();
    command.args(["demo", "--listen", "127.0.0.1:0", "--days", "0"]).env("TMPDIR", temporary.path());
    let mut demo = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("The dashboard: "));
    assert!(assert_private(temporary.path()) >= 2, "the directory and the database");
    let interrupt = format!("kill -INT {}", demo.id());
    assert!(Command::new("sh").args(["-c", &interrupt]).status().unwrap().success());
    // The pipe is read to its end, so that the demonstration does not fail at a write.
    lines.for_each(drop);
    assert!(demo.wait().unwrap().success());
}

fn without_umask_file(directory: &Path) -> u32 {
    let path = directory.join("control");
    assert!(Command::new("sh").args(["-c", "umask 0 && : > \"$0\""]).arg(&path).status().unwrap().success());
    fs::metadata(&path).unwrap().permissions().mode()
}
