//! File descriptors: each connection needs one, and the system limits how many a process may have.

use super::service::ServiceError;
use crate::http;
use crate::settings::HttpSettings;

/// The descriptors that the server needs besides those of connections and workers: files, pipes, timers, a backup.
const OWN: u64 = 48;

/// The descriptors that a worker needs.
const OF_A_WORKER: u64 = 8;

/// The fewest connections that are worth a start.
const LEAST_CONNECTIONS: u64 = 16;

/// What follows from the limit of the process.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    /// All connections of the settings.
    All,
    /// Only so many connections.
    Fewer(usize),
    /// Too few to start; so many are needed.
    None { needed: u64 },
}

/// Sees to it that the process may have the descriptors that the settings ask for: raises the limit as far as the process
/// may, and allows fewer connections if that is not enough.
pub(super) fn make_room(settings: &mut HttpSettings) -> Result<(), ServiceError> {
    let fixed = OWN + OF_A_WORKER * http::worker_count(settings) as u64;
    let needed = fixed + http::with_headroom(settings.max_connections) as u64;
    let Some(limit) = raise_to(needed) else { return Ok(()) };
    match fit(limit, fixed, settings.max_connections) {
        Fit::All => {}
        Fit::Fewer(connections) => {
            tracing::warn!(
                limit,
                needed,
                connections,
                "the process may open too few files for `http.max_connections`, so fewer connections can be open: \
                 raise `ulimit -n`"
            );
            settings.max_connections = connections;
        }
        Fit::None { needed } => return Err(ServiceError::TooFewDescriptors { limit, needed }),
    }
    Ok(())
}

fn fit(limit: u64, fixed: u64, max_connections: usize) -> Fit {
    if limit >= fixed + http::with_headroom(max_connections) as u64 {
        return Fit::All;
    }
    let needed = fixed + LEAST_CONNECTIONS;
    match limit.checked_sub(fixed) {
        Some(left @ LEAST_CONNECTIONS..) => {
            // The headroom is an eighth of the connections, and at least one.
            let connections = usize::try_from(left * 8 / 9).unwrap_or(max_connections) - 1;
            Fit::Fewer(connections.min(max_connections))
        }
        _ => Fit::None { needed },
    }
}

/// Raises the limit if it is below this, as far as the process may, and returns it; `None` if there is no limit.
#[cfg(unix)]
fn raise_to(needed: u64) -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current?;
    if current >= needed {
        return Some(current);
    }
    let raised = maximum.map_or(needed, |maximum| maximum.min(needed));
    let limit = Rlimit { current: Some(raised), maximum };
    Some(if raised > current && setrlimit(Resource::Nofile, limit).is_ok() { raised } else { current })
}

#[cfg(not(unix))]
fn raise_to(_needed: u64) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_within_the_limit() {
        assert_eq!(fit(64 + 1152, 64, 1024), Fit::All);
        assert_eq!(fit(64 + 1151, 64, 1024), Fit::Fewer(1022));
        assert_eq!(fit(31, 64, 1024), Fit::None { needed: 80 });
        assert_eq!(fit(79, 64, 1024), Fit::None { needed: 80 });
        for limit in 80..2000 {
            if let Fit::Fewer(connections) = fit(limit, 64, 1024) {
                assert!(
                    connections > 0 && 64 + http::with_headroom(connections) as u64 <= limit,
                    "{limit}: {connections}"
                );
            }
        }
    }
}
