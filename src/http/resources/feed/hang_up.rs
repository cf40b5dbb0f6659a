use std::rc::Rc;

/// Closes the connection of a stream that has to end, if its client does not read what was sent before. Otherwise the
/// stream could not end while the client reads nothing.
#[derive(Clone)]
pub(crate) struct HangUp(Rc<dyn Fn()>);

impl HangUp {
    pub(crate) fn new(close: impl Fn() + 'static) -> Self {
        Self(Rc::new(close))
    }

    pub(crate) fn unless_client_reads(&self) {
        (self.0)();
    }
}
