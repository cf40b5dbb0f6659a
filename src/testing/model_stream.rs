use std::collections::VecDeque;
use std::time::Duration;

use super::TestClock;
use crate::turn::Usage;

/// An item of a model's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelItem {
    /// A piece of text.
    Text(String),
    /// A piece of reasoning.
    Reasoning(String),
    /// The model asks to run a tool.
    ToolCall {
        /// The name of the tool.
        name: String,
        /// The id of the call, which its result refers to.
        id: String,
    },
    /// A usage report.
    Usage(Usage),
    /// A failure that breaks the stream, with its reason.
    Failure(String),
}

/// A model's stream as a test scripts it. Its waits move a test clock and take no real time.
///
/// ```
/// use std::time::Duration;
/// use turn_metrics::clock::Stopwatch;
/// use turn_metrics::testing::{ModelItem, ModelStream, TestClock};
///
/// # actix::System::new().block_on(async {
/// let clock = TestClock::at(0);
/// let mut stream = ModelStream::new(&clock).wait_ms(250).text("hello").wait_ms(50);
/// assert_eq!(stream.next().await, Some(ModelItem::Text("hello".into())));
/// assert_eq!(clock.elapsed(), Duration::from_millis(250));
/// assert_eq!(stream.next().await, None);
/// assert_eq!(clock.elapsed(), Duration::from_millis(300));
/// # });
/// ```
#[derive(Debug)]
pub struct ModelStream {
    clock: TestClock,
    items: VecDeque<Scripted>,
}

#[derive(Debug)]
enum Scripted {
    Wait(Duration),
    Item(ModelItem),
}

impl ModelStream {
    /// Returns an empty stream whose waits move `clock`.
    pub fn new(clock: &TestClock) -> Self {
        Self { clock: clock.clone(), items: VecDeque::new() }
    }

    /// Adds a wait of this length.
    #[must_use]
    pub fn wait_ms(mut self, millis: u64) -> Self {
        self.items.push_back(Scripted::Wait(Duration::from_millis(millis)));
        self
    }

    /// Adds a piece of text.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.item(ModelItem::Text(text.to_owned()))
    }

    /// Adds a piece of reasoning.
    #[must_use]
    pub fn reasoning(self, text: &str) -> Self {
        self.item(ModelItem::Reasoning(text.to_owned()))
    }

    /// Adds a request to run a tool.
    #[must_use]
    pub fn tool_call(self, name: &str, id: &str) -> Self {
        self.item(ModelItem::ToolCall { name: name.to_owned(), id: id.to_owned() })
    }

    /// Adds a usage report without cached tokens.
    #[must_use]
    pub fn usage(self, input_tokens: u32, output_tokens: u32) -> Self {
        let usage =
            Usage { input_tokens: input_tokens.into(), output_tokens: output_tokens.into(), ..Usage::default() };
        self.usage_with(usage)
    }

    /// Adds a usage report.
    #[must_use]
    pub fn usage_with(self, usage: Usage) -> Self {
        self.item(ModelItem::Usage(usage))
    }

    /// Adds a failure that breaks the stream.
    #[must_use]
    pub fn failure(self, reason: &str) -> Self {
        self.item(ModelItem::Failure(reason.to_owned()))
    }

    fn item(mut self, item: ModelItem) -> Self {
        self.items.push_back(Scripted::Item(item));
        self
    }

    /// Returns the next item, or `None` at the end. Lets other tasks run before it, as a stream over a network does.
    pub async fn next(&mut self) -> Option<ModelItem> {
        tokio::task::yield_now().await;
        loop {
            match self.items.pop_front()? {
                Scripted::Wait(time) => self.clock.advance(time),
                Scripted::Item(item) => return Some(item),
            }
        }
    }
}
