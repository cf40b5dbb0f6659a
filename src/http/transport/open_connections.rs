use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use indexmap::IndexMap;
use tokio::time::Instant;

use crate::http::resources::feed::hang_up::HangUp;

/// The open connections of one worker. If there are more of them than allowed, the one that is idle for longest has to
/// close.
#[derive(Clone)]
pub(crate) struct OpenConnections(Rc<Inner>);

struct Inner {
    most: usize,
    next: Cell<u64>,
    entries: RefCell<IndexMap<u64, Rc<Entry>>>,
}

/// The state of one connection that other connections can see.
struct Entry {
    /// When bytes last arrived or left.
    active_at: Cell<Instant>,
    /// Whether it waits for its client: for the next request, or until the client reads an answer.
    is_idle: Cell<bool>,
    is_to_close: Cell<bool>,
    /// Whether it has to close as soon as it waits for its client.
    hangs_up: Cell<bool>,
    /// Whether it has to close when its client closes its side, although an answer is being sent.
    leaves_with_client: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// The place of one connection among the open ones. Dropping it frees the place.
pub(crate) struct Place {
    open: OpenConnections,
    number: u64,
    entry: Rc<Entry>,
}

impl OpenConnections {
    /// Returns room for this many connections.
    pub(crate) fn new(most: usize) -> Self {
        Self(Rc::new(Inner { most, next: Cell::new(0), entries: RefCell::default() }))
    }

    /// Adds a connection. If there was no room for it, tells the other connection that is idle for longest to close.
    pub(crate) fn enter(&self) -> Place {
        let inner = &self.0;
        let mut entries = inner.entries.borrow_mut();
        let surplus = (entries.len() + 1).saturating_sub(inner.most);
        let leaving = || entries.values().filter(|entry| entry.is_to_close.get()).count();
        if surplus > 0 && leaving() < surplus {
            let idle = entries.values().filter(|entry| entry.is_idle.get() && !entry.is_to_close.get());
            if let Some(idlest) = idle.min_by_key(|entry| entry.active_at.get()) {
                idlest.is_to_close.set(true);
                if let Some(waker) = idlest.waker.borrow_mut().take() {
                    waker.wake();
                }
            }
        }
        let entry = Rc::new(Entry {
            active_at: Cell::new(Instant::now()),
            is_idle: Cell::new(true),
            is_to_close: Cell::new(false),
            hangs_up: Cell::new(false),
            leaves_with_client: Cell::new(false),
            waker: RefCell::default(),
        });
        let number = inner.next.replace(inner.next.get() + 1);
        entries.insert(number, Rc::clone(&entry));
        Place { open: self.clone(), number, entry }
    }

    /// Returns whether there are more connections than allowed, not counting those that were told to close.
    pub(crate) fn is_crowded(&self) -> bool {
        let entries = self.0.entries.borrow();
        // Fast path: usually there is room.
        entries.len() > self.0.most && entries.values().filter(|entry| !entry.is_to_close.get()).count() > self.0.most
    }
}

impl Place {
    /// Notes that the client sends or takes the bytes of a request that is being answered. If the connection was told to
    /// close because it was idle, it stays open.
    ///
    /// Bytes of the next head do not count. Otherwise clients that send their heads byte by byte would keep their places
    /// from others.
    pub(crate) fn is_active(&self) {
        self.entry.active_at.set(Instant::now());
        self.entry.is_to_close.set(false);
    }

    /// Notes whether the connection is idle, which means that it waits for its client. If the connection has to close
    /// later, its task is woken.
    pub(crate) fn waits(&self, is_idle: bool, cx: &Context<'_>) {
        self.entry.is_idle.set(is_idle);
        let mut waker = self.entry.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Returns whether the connection has to close: it makes room for another one, or was told to hang up.
    pub(crate) fn is_to_close(&self) -> bool {
        self.entry.is_to_close.get() || self.entry.hangs_up.get()
    }

    /// Returns whether the connection has to close when its client closes its side.
    pub(crate) fn leaves_with_client(&self) -> bool {
        self.entry.leaves_with_client.get()
    }

    /// Notes that no answer is sent any more that has to end with the client.
    pub(crate) fn may_outlive_client(&self) {
        self.entry.leaves_with_client.set(false);
    }

    /// Returns the handle that closes the connection: as soon as it waits for its client, or when its client has left.
    pub(crate) fn hang_up(&self) -> HangUp {
        let (entry, leaving) = (Rc::clone(&self.entry), Rc::clone(&self.entry));
        let close = move || {
            entry.hangs_up.set(true);
            if let Some(waker) = entry.waker.borrow_mut().take() {
                waker.wake();
            }
        };
        HangUp::new(close, move || leaving.leaves_with_client.set(true))
    }

    /// Returns the open connections, including this one.
    pub(crate) fn open(&self) -> &OpenConnections {
        &self.open
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.0.entries.borrow_mut().swap_remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_told_to_hang_up_closes_even_if_bytes_leave_in_between() {
        let open = OpenConnections::new(2);
        let (place, other) = (open.enter(), open.enter());
        let woken = std::sync::Arc::new(Woken(false.into()));
        let waker = std::sync::Arc::clone(&woken).into();
        place.waits(false, &Context::from_waker(&waker));
        place.hang_up().unless_client_reads();
        assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst), "it would not notice before its client reads");
        place.is_active();
        assert!(place.is_to_close() && !other.is_to_close());
    }

    struct Woken(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_idlest_makes_room_and_one_that_is_at_work_does_not() {
        let open = OpenConnections::new(3);
        let cx = Context::from_waker(Waker::noop());
        let mut places = Vec::new();
        for _ in 0..3 {
            places.push(open.enter());
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
        }
        places[0].waits(false, &cx);
        places[1].waits(true, &cx);
        places[2].waits(true, &cx);
        let closing = |places: &[Place]| places.iter().map(Place::is_to_close).collect::<Vec<_>>();
        assert_eq!(closing(&places), [false; 3]);
        assert!(!open.is_crowded());
        places.push(open.enter());
        assert_eq!(closing(&places), [false, true, false, false]);
        assert!(!open.is_crowded(), "one is about to close");
        // For another connection another one has to close, because the first one has not closed yet.
        places.push(open.enter());
        assert_eq!(closing(&places), [false, true, true, false, false]);
        // A connection that was active in the meantime stays open, and another one makes room.
        places[2].is_active();
        assert!(!places[2].is_to_close());
        assert!(open.is_crowded());
        drop(places.remove(1));
        drop(places.remove(3));
        assert_eq!(closing(&places), [false, false, false]);
        assert!(!open.is_crowded());
    }
}
