//! `turn-metrics erase`: erases a conversation on a server.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use super::CliError;
use super::args::ServerArgs;
use super::client::Client;
use super::output::{self, plain};
use crate::turn::ConversationId;

/// Erases a conversation of a running server: its turns, its open turns and its id.
///
/// What it has spent stays in the reports, which contain no ids of conversations, turns or steps. Events that arrive later
/// begin the conversation anew. The data leaves the database in the background. To remove its last traces from the free
/// space of the file, stop the server and run `turn-metrics compact`. Backups, exports and logs are not changed.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  turn-metrics erase my-conversation
  turn-metrics erase my-conversation --yes --server http://127.0.0.1:24210

On a terminal it asks first; elsewhere --yes is needed.
Exit codes: 0 erased, 1 failed, or there is no such conversation, 2 wrong usage.")]
pub(super) struct Args {
    /// The id of the conversation
    conversation: ConversationId,

    #[command(flatten)]
    server: ServerArgs,

    /// Do not ask first
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let id = plain(args.conversation.as_str());
    if !args.yes {
        if !io::stdin().is_terminal() {
            output::note("nothing was erased: give --yes, as there is no terminal to ask on");
            return Ok(ExitCode::FAILURE);
        }
        let ask = || confirm(&mut io::stdin().lock(), &mut io::stderr(), &id);
        if !ask().map_err(CliError::system("ask on the terminal"))? {
            output::note("nothing was erased");
            return Ok(ExitCode::FAILURE);
        }
    }
    if Client::new(args.server.server.clone()).erase(&args.conversation)? {
        output::note(&format!("conversation {id} is erased"));
        return Ok(ExitCode::SUCCESS);
    }
    output::note(&format!("there is no conversation {id}"));
    Ok(ExitCode::FAILURE)
}

/// Asks whether to erase a conversation. Every answer but `yes` means no.
fn confirm(answers: &mut impl BufRead, questions: &mut impl Write, id: &str) -> io::Result<bool> {
    write!(questions, "Erase all turns of conversation {id}? This cannot be undone. Type yes to erase them: ")?;
    questions.flush()?;
    let mut answer = String::new();
    answers.read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, answer};
    use super::*;

    #[test]
    fn only_a_yes_erases() {
        for (answer, is_yes) in [("yes\n", true), (" yes \r\n", true), ("y\n", false), ("\n", false), ("", false)] {
            let mut asked = Vec::new();
            assert_eq!(confirm(&mut answer.as_bytes(), &mut asked, "a b").unwrap(), is_yes, "{answer:?}");
            assert!(String::from_utf8(asked).unwrap().contains("conversation a b?"));
        }
    }

    #[test]
    fn the_server_says_whether_there_was_anything_to_erase() {
        let gone = "HTTP/1.1 204 No Content\r\n\r\n".to_owned();
        let unknown = answer(404, r#"{"error":"there is no such conversation"}"#);
        let overloaded = answer(503, r#"{"error":"too much is being worked on"}"#);
        let script = Script::play(vec![Some(gone), unknown, overloaded]);
        let client = Client::new(script.url());
        let id = ConversationId::new("a/b").unwrap();
        assert!(client.erase(&id).unwrap());
        assert!(!client.erase(&id).unwrap());
        assert!(client.erase(&id).unwrap_err().is_transient());
        assert!(script.requests().iter().all(|request| request.starts_with("DELETE /conversations/a%2Fb ")));
    }
}
