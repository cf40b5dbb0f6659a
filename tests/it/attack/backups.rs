use std::io::{Read, Write};
use std::net::TcpStream;

use super::{assert_served, longest_turn};
use crate::server::{Answer, PATIENCE, Server, until};

/// Starts a server with a database that is larger than the buffers of sockets.
fn server(settings: &[(&str, &str)]) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(directory.path(), settings);
    let turns: String = ["t1", "t2", "t3"].map(|turn| longest_turn("long", turn)).concat();
    assert_eq!(server.client().post_events(&turns).status, 200);
    (directory, server)
}

/// Requests a backup and reads only the status.
pub(super) fn ask(server: &Server) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /backup HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    (stream, String::from_utf8(status[9..].to_vec()).unwrap())
}

/// Reads a whole backup. Returns the number of bytes that arrived and the number that was announced.
fn read(server: &Server) -> (usize, usize) {
    let (mut stream, status) = ask(server);
    assert_eq!(status, "200");
    let mut answer = Vec::new();
    // If the backup is broken off, the connection may end with a reset.
    let _ = stream.read_to_end(&mut answer);
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let text = String::from_utf8_lossy(&answer[..head]).to_lowercase();
    let (_, length) = text.split_once("content-length: ").unwrap();
    (answer.len() - head - 4, length.lines().next().unwrap().parse().unwrap())
}

fn refused(server: &Server) -> Answer {
    let answer = server.client().get("/backup");
    assert_eq!(answer.status, 503, "{answer:?}");
    answer
}

#[test]
fn one_copy_is_made_at_a_time_and_the_next_one_waits_until_it_is_sent() {
    let (_directory, server) = server(&[]);
    let (unread, status) = ask(&server);
    assert_eq!(status, "200");
    for _ in 0..5 {
        assert!(refused(&server).error().contains("sent already"));
    }
    #[cfg(target_os = "linux")]
    assert_eq!(copies(&server), 1, "one copy takes space on the disk");
    assert_served(&mut server.client(), "during");

    // Control: when the connection ends, the copy is removed, and another backup can be made.
    drop(unread);
    until("there is a backup again", || (ask(&server).1 == "200").then_some(()));
    until("the copy is gone", || (server.client().get("/ready").status == 200).then_some(()));
    #[cfg(target_os = "linux")]
    until("no copy is left", || (copies(&server) == 0).then_some(()));
}

/// Returns the number of copies that the server holds open. They are files without a name.
#[cfg(target_os = "linux")]
fn copies(server: &Server) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", server.process())).unwrap();
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    targets.filter(|target| target.to_string_lossy().ends_with(".unfinished-backup (deleted)")).count()
}

#[test]
fn a_backup_has_a_deadline() {
    let (_directory, slow) = server(&[("HTTP__BACKUP_TIMEOUT", "1ms")]);
    let refused = refused(&slow);
    assert!(refused.error().contains("too long") || refused.error().contains("already"), "{refused:?}");
    // A copy that is too late for its client is removed. So the next backup is refused for the same reason, and not
    // because a copy is in the way.
    until("the copy is given back", || slow.client().get("/backup").error().contains("too long").then_some(()));

    // The time includes that in which the copy is built, which a busy machine may need longer for.
    let made_in = |seconds: u32| {
        let (directory, server) = server(&[("HTTP__BACKUP_TIMEOUT", &format!("{seconds}s"))]);
        let (unread, status) = ask(&server);
        (status == "200").then_some((unread, directory, server))
    };
    let (unread, _directory, server) = [2, 5, 10, 20].into_iter().find_map(made_in).expect("no backup is made in time");
    until("the unread one is ended", || (ask(&server).1 == "200").then_some(()));
    drop(unread);
    // Control: a backup that is read in time arrives completely.
    let (_directory, server) = self::server(&[]);
    let (came, announced) = read(&server);
    assert_eq!(came, announced);
}

#[test]
fn a_backup_leaves_the_disk_its_reserve() {
    // The reserve is larger than any disk.
    let (_directory, server) = server(&[("STORE__REDB__BACKUP_RESERVE_BYTES", "1_099_511_627_776")]);
    let refused = refused(&server);
    assert!(refused.error().contains("1099511627776 for commits"), "{refused:?}");
    #[cfg(target_os = "linux")]
    assert_eq!(copies(&server), 0);
    // Control: with a small reserve, a backup is made.
    let (_directory, server) = self::server(&[("STORE__REDB__BACKUP_RESERVE_BYTES", "1024")]);
    let (came, announced) = read(&server);
    assert_eq!(came, announced);
}
