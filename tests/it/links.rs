//! Files behind symbolic links are written where they are, and the links stay.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::server::{Server, metrics, turn_metrics};

const MAIN: &str = "turn-metrics.redb";
const JOURNAL: &str = "turn-metrics.journal.redb";

/// A data directory whose files are links to files in two other directories, which stand for two disks.
struct Linked {
    directory: tempfile::TempDir,
    far: tempfile::TempDir,
    farther: tempfile::TempDir,
}

impl Linked {
    /// Creates a database and moves it to another directory. The journal does not exist yet.
    fn new() -> Self {
        let [directory, far, farther] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let linked = Self { directory, far, farther };
        stop(Server::start(linked.path()));
        fs::rename(linked.path().join(MAIN), linked.main()).unwrap();
        symlink(linked.main(), linked.path().join(MAIN)).unwrap();
        symlink(linked.journal(), linked.path().join(JOURNAL)).unwrap();
        linked
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn main(&self) -> PathBuf {
        self.far.path().join("metrics.db")
    }

    fn journal(&self) -> PathBuf {
        self.farther.path().join("journal")
    }

    /// Asserts that the data directory has only the two links, and the other directories have these files.
    #[track_caller]
    fn assert_files(&self, far: &[&str], farther: &[&str]) {
        assert_eq!(names(self.path()), [JOURNAL, MAIN]);
        assert!(self.path().join(MAIN).is_symlink() && self.path().join(JOURNAL).is_symlink(), "a link is gone");
        assert_eq!((names(self.far.path()), names(self.farther.path())), (owned(far), owned(farther)));
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn seal(server: &Server, turn: &str) {
    let done = format!(r#"{{"type":"done","conversationId":"c","turnId":"{turn}","reason":"stop"}}"#);
    assert_eq!(server.client().post_events(&done).status, 200);
}

fn stop(server: Server) {
    server.signal("TERM");
    assert!(server.wait().0.success());
}

fn run(command: &str, data_dir: &Path) -> Output {
    turn_metrics().args([command, "--data-dir"]).arg(data_dir).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_store_writes_to_the_targets_of_its_links() {
    let linked = Linked::new();
    let server = Server::start(linked.path());
    seal(&server, "t1");
    linked.assert_files(&["metrics.db"], &["journal"]);
    stop(server);
    // The stopped server has removed the journal, and its link stays.
    linked.assert_files(&["metrics.db"], &[]);
    let server = Server::start(linked.path());
    seal(&server, "t2");
    server.kill();
    linked.assert_files(&["metrics.db"], &["journal"]);

    assert_eq!(run("check", linked.path()).status.code(), Some(0));
    let server = Server::start(linked.path());
    let turns = metrics(&mut server.client(), "c");
    assert!(turns.contains(r#""turnId":"t1""#) && turns.contains(r#""turnId":"t2""#), "{turns}");
}

#[test]
fn leftovers_beside_the_target_of_a_link_are_removed_at_a_start_and_other_files_are_not() {
    let linked = Linked::new();
    let left = ["metrics.db.unfinished-compaction", "metrics.db.unfinished-backup"];
    let others = ["metrics.db.backup", "metrics.db.before-repair-1"];
    for name in left.iter().chain(&others) {
        fs::write(linked.far.path().join(name), "x").unwrap();
    }
    fs::write(linked.farther.path().join("journal.unfinished-new"), "x").unwrap();
    let server = Server::start(linked.path());
    linked.assert_files(&["metrics.db", others[0], others[1]], &["journal"]);
    drop(server);
}

#[test]
fn a_repair_works_on_the_targets_of_links_and_in_a_linked_directory() {
    let linked = Linked::new();
    let server = Server::start(linked.path());
    seal(&server, "t1");
    server.kill();
    fs::remove_file(linked.journal()).unwrap();
    let home = tempfile::tempdir().unwrap();
    symlink(linked.path(), home.path().join("data")).unwrap();
    let mut command = turn_metrics();
    command.args(["check", "--repair", "--data-dir"]).arg(home.path().join("data"));
    // The disk of the journal may not be mounted, so the repair goes on without it only if its link is removed.
    let refused = command.output().unwrap();
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let link = linked.path().join(JOURNAL);
    fs::remove_file(&link).unwrap();
    let repaired = command.output().unwrap();
    assert_eq!(repaired.status.code(), Some(1), "{repaired:?}");
    symlink(linked.journal(), &link).unwrap();
    linked.assert_files(&["metrics.db", "metrics.db.before-repair-1"], &[]);
    for command in ["check", "compact"] {
        assert_eq!(run(command, &home.path().join("data")).status.code(), Some(0));
    }
    linked.assert_files(&["metrics.db", "metrics.db.before-repair-1"], &[]);
    let server = Server::start(&home.path().join("data"));
    seal(&server, "t1");
    linked.assert_files(&["metrics.db", "metrics.db.before-repair-1"], &["journal"]);
}

#[test]
fn compact_replaces_the_file_in_its_own_directory() {
    let linked = Linked::new();
    let server = Server::start(linked.path());
    seal(&server, "t1");
    let before = metrics(&mut server.client(), "c");
    server.kill();
    // The links form chains, relative and absolute.
    fs::remove_file(linked.path().join(MAIN)).unwrap();
    symlink("metrics.db", linked.far.path().join("again")).unwrap();
    symlink(linked.far.path().join("again"), linked.path().join(MAIN)).unwrap();
    let inode = fs::metadata(linked.main()).unwrap().ino();

    let compacted = run("compact", linked.path());
    assert!(compacted.status.success(), "{compacted:?}");
    linked.assert_files(&["again", "metrics.db"], &[]);
    assert!(linked.far.path().join("again").is_symlink());
    let file = fs::symlink_metadata(linked.main()).unwrap();
    assert!(file.is_file() && file.ino() != inode, "the file was not replaced");
    let size = format!("to {}\n", file.len());
    assert!(told(&compacted).ends_with(&size), "{compacted:?}");
    let server = Server::start(linked.path());
    assert_eq!(metrics(&mut server.client(), "c"), before);
}

#[test]
fn a_link_to_a_missing_database_is_an_error_and_no_empty_one_is_created() {
    let linked = Linked::new();
    fs::remove_file(linked.main()).unwrap();
    for command in ["serve", "compact", "check"] {
        let mut refused = turn_metrics();
        refused.args([command, "--data-dir"]).arg(linked.path());
        if command == "serve" {
            refused.args(["--listen", "127.0.0.1:0"]);
        }
        let refused = refused.output().unwrap();
        assert!(!refused.status.success());
        assert!(told(&refused).contains(&linked.main().display().to_string()), "{command}: {}", told(&refused));
        linked.assert_files(&[], &[]);
    }
}

#[test]
fn the_error_about_a_dangling_data_directory_names_the_link() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("data");
    symlink("unmounted", &link).unwrap();
    let expected = format!(
        "{} is a symbolic link to {}, which does not exist\n",
        link.display(),
        directory.path().join("unmounted").display()
    );
    for data_dir in [link.clone(), link.join("deeper")] {
        let listen = ["serve", "--listen", "127.0.0.1:0", "--data-dir"];
        let refused = turn_metrics().args(listen).arg(&data_dir).output().unwrap();
        assert_eq!(refused.status.code(), Some(1));
        assert!(told(&refused).ends_with(&expected), "{}", told(&refused));
    }
    for command in ["check", "compact"] {
        for data_dir in [link.clone(), link.join("deeper")] {
            let refused = run(command, &data_dir);
            assert_eq!(refused.status.code(), Some(if command == "check" { 3 } else { 1 }));
            assert_eq!(
                told(&refused),
                format!("turn-metrics: the data directory {} cannot be used: {expected}", data_dir.display())
            );
        }
    }
    let missing = run("check", &directory.path().join("missing"));
    assert!(told(&missing).contains("there is no database"), "{}", told(&missing));
    fs::create_dir(directory.path().join("unmounted")).unwrap();
    seal(&Server::start(&link), "t");
    assert!(directory.path().join("unmounted").join(MAIN).is_file());
}

#[test]
fn a_backup_is_written_to_the_target_of_a_link() {
    let linked = Linked::new();
    let server = Server::start(linked.path());
    seal(&server, "t");
    let (near, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let link = near.path().join("copy.redb");
    symlink(far.path().join(MAIN), &link).unwrap();
    let back_up = |more: &[&str]| {
        let mut command = turn_metrics();
        command.args(["backup", "--server", &server.url()]).arg(&link).args(more).output().unwrap()
    };
    // The first backup finds no file, the second one is refused, and the third one replaces the file.
    for (more, code) in [(&[][..], 0), (&[], 1), (&["--force"], 0)] {
        let output = back_up(more);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(link.is_symlink() && names(near.path()) == ["copy.redb"] && names(far.path()) == [MAIN]);
        assert_eq!(run("check", far.path()).status.code(), Some(0));
    }
    linked.assert_files(&["metrics.db"], &["journal"]);
}

#[test]
fn a_backup_replaces_files_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let inside = directory.path().join("directory");
    fs::create_dir(&inside).unwrap();
    for destination in [&pipe, &inside] {
        let mut command = turn_metrics();
        command.args(["backup", "--force", "--server", &server.url()]).arg(destination);
        let refused = command.output().unwrap();
        assert_eq!(refused.status.code(), Some(1));
        assert!(told(&refused).contains("cannot be written: it is "), "{refused:?}");
    }
    assert!(!pipe.is_file() && inside.is_dir());
}
