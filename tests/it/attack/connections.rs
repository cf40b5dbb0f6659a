use std::fs;
use std::io::{Read, Write};
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::backups::ask;
use super::{assert_served, done};
use crate::server::{Client, Server, turn_metrics, until};

fn server(settings: &[(&str, &str)]) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), settings);
    (directory, server)
}

const FOUR: [(&str, &str); 2] = [("HTTP__MAX_CONNECTIONS", "4"), ("HTTP__WORKERS", "1")];

/// Returns whether the server has closed this connection.
fn is_closed(client: &mut Client) -> bool {
    let stream = client.stream().unwrap().get_mut();
    stream.set_nonblocking(true).unwrap();
    let read = stream.read(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    matches!(read, Ok(0)) || read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[test]
fn at_the_limit_of_connections_the_idlest_makes_room() {
    let (_directory, server) = server(&FOUR);
    let mut idle: Vec<_> = (0..4).map(|_| server.client()).collect();
    for client in &mut idle {
        assert_eq!(client.get("/health").status, 200);
    }
    // The connection that was idle for the longest time is used again.
    assert_eq!(idle[0].get("/health").status, 200);
    assert_served(&mut server.client(), "fresh");
    until("the idlest is closed", || is_closed(&mut idle[1]).then_some(()));
    assert!(!is_closed(&mut idle[0]), "it was used");

    // Many more clients connect, and each is served.
    let fresh: Vec<_> = (0..40)
        .map(|turn| {
            let mut client = server.client();
            assert_served(&mut client, &turn.to_string());
            client
        })
        .collect();
    drop(fresh);
}

#[test]
fn connections_at_work_are_not_closed_for_others() {
    // Control of the test above: connections are only closed if they are idle.
    let (_directory, server) = server(&FOUR);
    let body = done("c", "t");
    let mut at_work: Vec<_> = (0..4).map(|_| server.client()).collect();
    for client in &mut at_work {
        client.begin_post(body.len());
    }
    for turn in 0..10 {
        assert_served(&mut server.client(), &turn.to_string());
    }
    for client in &mut at_work {
        assert_eq!(client.send_raw(body.as_bytes(), false).unwrap().status, 200);
    }
}

#[test]
fn an_incomplete_head_occupies_no_connection_that_others_need() {
    let (_directory, server) = server(&[FOUR[0], FOUR[1], ("HTTP__HEADER_TIMEOUT", "1h")]);
    let mut slow: Vec<_> = (0..5).map(|_| server.client()).collect();
    for client in &mut slow {
        client.stream().unwrap().get_mut().write_all(b"GET /health HTTP/1.1\r\nx-slow: ").unwrap();
    }
    for turn in 0..10 {
        assert_served(&mut server.client(), &turn.to_string());
    }
}

/// Returns the program under this limit of open files. The limit is both soft and hard.
fn limited(limit: &str) -> Command {
    let program = turn_metrics();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limit} && exec \"$0\" \"$@\"")]).arg(program.get_program());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Returns the server's soft limit of open files.
fn files_allowed(server: &Server) -> u64 {
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.process())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn too_low_a_limit_of_files_is_reported_at_the_start_or_raised() {
    // With so few files the server could answer nothing. It does not start, and says how many it needs.
    let directory = tempfile::tempdir().unwrap();
    let mut command = limited("ulimit -n 31");
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory.path());
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("only 31 files") && told.contains("ulimit -n") && !told.contains("panicked"), "{told}");

    // With few files, it serves fewer connections, and says so.
    let few = [("HTTP__WORKERS", "2")];
    let server = Server::start_by(limited("ulimit -n 120"), directory.path(), &few);
    let idle: Vec<_> = (0..150)
        .map(|turn| {
            let mut client = server.client();
            assert_served(&mut client, &turn.to_string());
            client
        })
        .collect();
    drop(idle);
    server.signal("TERM");
    let (status, log) = server.wait();
    assert!(status.success());
    assert!(log.iter().any(|line| line.contains("too few files") && line.contains("\"limit\":120")), "{log:#?}");

    // Control: if the hard limit allows it, the server raises the soft limit and logs nothing.
    let server = Server::start_by(limited("ulimit -S -n 120"), directory.path(), &few);
    assert!(files_allowed(&server) > 1024, "{}", files_allowed(&server));
    server.signal("TERM");
    let (_, log) = server.wait();
    assert!(!log.iter().any(|line| line.contains("too few files")), "{log:#?}");
}

#[test]
fn a_thread_that_cannot_be_started_causes_an_error_answer_and_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    // The C library reuses the stacks of ended threads. Stacks of this size are too large for that.
    let mut command = turn_metrics();
    command.env("RUST_MIN_STACK", (64 << 20).to_string());
    let server = Server::start_by(command, directory.path(), &[]);
    assert_served(&mut server.client(), "before");
    // The thread that reads the bundled prices at the start needs memory, and frees its stack when it ends.
    until("the prices were read", || {
        let threads = fs::read_dir(format!("/proc/{}/task", server.process())).unwrap();
        let mut names = threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")).ok());
        (!names.any(|name| name.trim() == "prices")).then_some(())
    });
    let process = Pid::from_raw(server.process().try_into().unwrap());
    let status = fs::read_to_string(format!("/proc/{}/status", server.process())).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let kib: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
    // The new limit has room for small allocations, but not for the stack of another thread.
    let limit = Rlimit { current: Some(kib * 1024 + 512 * 1024), maximum: getrlimit(Resource::As).maximum };
    prlimit(process, Resource::As, limit).unwrap();
    assert_eq!(ask(&server).1, "503");
    for turn in 0..3 {
        assert_served(&mut server.client(), &turn.to_string());
    }
    // Control: when there is room again, a backup is made.
    prlimit(process, Resource::As, getrlimit(Resource::As)).unwrap();
    until("there is a backup", || (ask(&server).1 == "200").then_some(()));
    server.signal("TERM");
    let (status, log) = server.wait();
    assert!(status.success(), "{log:#?}");
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("no thread") || line.contains("no backup was made")), "{log:#?}");
}
