//! `init`: writes a configuration file for `--config`, by asking or from the environment.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};

use secret_persistence::{Environment, StoreUrl};
use serde_json::json;

use crate::cli::InitArgs;
use crate::console::remark;
use crate::output::Output;
use crate::status::{Failure, Result, Status};

/// What the file needs to know.
struct Question {
    key: &'static str,
    /// The variable with the answer, or with its default on a terminal; one answer per line if there may be several.
    variable: &'static str,
    text: &'static str,
    is_required: bool,
    is_list: bool,
    may_be_file: bool,
}

const QUESTIONS: [Question; 4] = [
    Question {
        key: "from",
        variable: "SECRET_MIGRATE_FROM",
        text: "The store to copy from, as a URL without credentials",
        is_required: true,
        is_list: false,
        may_be_file: false,
    },
    Question {
        key: "to",
        variable: "SECRET_MIGRATE_TO",
        text: "The store to copy to, as a URL without credentials",
        is_required: true,
        is_list: false,
        may_be_file: false,
    },
    Question {
        key: "configs",
        variable: "SECRET_MIGRATE_CONFIGS",
        text: "Where configurations are: a database URL with ?table=…, or a JSON lines file",
        is_required: true,
        is_list: true,
        may_be_file: true,
    },
    Question {
        key: "references",
        variable: "SECRET_MIGRATE_REFERENCES",
        text: "The table that resolves reference ids (empty: none)",
        is_required: false,
        is_list: false,
        may_be_file: false,
    },
];

/// Runs it.
pub(crate) fn run(args: &InitArgs, environment: &Environment, output: &Output) -> Result<Status> {
    let file = args.file.display();
    if args.file.exists() {
        return Err(Failure::input("already exists; name a new file").at(format!("--file {file}")));
    }
    let asks = io::stdin().is_terminal();
    let mut answers = Vec::new();
    for question in &QUESTIONS {
        answers.push((question, answer(question, environment, asks)?));
    }
    let text = written(&answers, &file.to_string());
    File::create_new(&args.file)
        .and_then(|mut new| new.write_all(text.as_bytes()))
        .map_err(|cause| {
            Failure::input("cannot be written")
                .at(format!("--file {file}"))
                .with_source(cause)
        })?;
    output.line(format!(
        "init: {file} is written. Credentials stay in the environment (see --help). Next: secret-migrate --config {file} check"
    ));
    output.object(
        Status::Done,
        &json!({ "command": "init", "file": args.file }),
    );
    Ok(Status::Done)
}

/// The answers to a question: none, one or several.
fn answer(question: &Question, environment: &Environment, asks: bool) -> Result<Vec<String>> {
    let given = environment.get(question.variable).unwrap_or_default();
    let mut answers: Vec<String> = given
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(ToOwned::to_owned)
        .collect();
    if asks {
        let default = match answers.is_empty() {
            true => String::new(),
            false => format!(" [{}]", answers.join(" ")),
        };
        let again = if question.is_list {
            "; one per line, an empty line ends"
        } else {
            ""
        };
        remark(format!("{}{again}{default}:", question.text));
        let mut typed = Vec::new();
        while let Some(line) = next_line()? {
            typed.push(line);
            if !question.is_list {
                break;
            }
        }
        if !typed.is_empty() {
            answers = typed;
        }
    }
    if answers.is_empty() && question.is_required {
        return Err(Failure::input(format!(
            "{} is not set, and there is no terminal to ask `{}`",
            question.variable, question.text
        )));
    }
    for answer in &answers {
        // Only configurations may be in a file, whose name is no URL. The message never repeats a URL
        // that has credentials.
        let name = answer.split('?').next().unwrap_or_default();
        if !question.may_be_file || name.contains(':') {
            StoreUrl::parse(answer).map_err(|error| Failure::from(error).at(question.variable))?;
        }
    }
    Ok(answers)
}

/// A line of the terminal; `None` if it is empty or the input has ended.
fn next_line() -> Result<Option<String>> {
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .map_err(|cause| Failure::failed("cannot read the answer").with_source(cause))?;
    let line = line.trim();
    Ok((!line.is_empty()).then(|| line.to_owned()))
}

fn written(answers: &[(&Question, Vec<String>)], file: &str) -> String {
    let quoted = |text: &String| toml::Value::from(text.as_str()).to_string();
    let mut text = format!(
        "# Options for every command: secret-migrate --config {file} plan\n\
         # Credentials do not belong here; they stay in the environment.\n"
    );
    for (question, answers) in answers {
        match (question.is_list, answers.first()) {
            (_, None) => {}
            (true, _) => {
                let items: Vec<String> = answers.iter().map(quoted).collect();
                text += &format!("{} = [{}]\n", question.key, items.join(", "));
            }
            (false, Some(answer)) => {
                text += &format!("{} = {}\n", question.key, quoted(answer));
                if question.key == "to" {
                    text += &format!(
                        "# The store of check, prepare, sweep and the other commands for one store.\nstore = {}\n",
                        quoted(answer)
                    );
                }
            }
        }
    }
    text + "journal = \"migrate-journal.db\"\n\n[split]\njournal = \"migrate-split-journal.db\"\n"
}
