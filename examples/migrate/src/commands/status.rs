//! `status`: how far the processes with one journal are.

use std::time::Duration;

use console::Term;
use secret_persistence::Environment;
use secret_persistence_migrate::{JournalStatus, PassPhase, PassStatus};

use crate::cli::StatusArgs;
use crate::journal;
use crate::output::Output;
use crate::status::{Result, Status};

/// Shows it once, or again and again until the pass has ended.
pub(crate) async fn run(
    args: StatusArgs,
    environment: &Environment,
    output: &Output,
) -> Result<Status> {
    let terminal = Term::stdout();
    let mut drawn = 0;
    loop {
        let status = journal::status(&args.journal.journal, environment).await?;
        if terminal.is_term() && !output.is_json() {
            // A terminal that does not obey shows one below the other.
            let _ = terminal.clear_last_lines(drawn);
        }
        let lines = lines(&status);
        lines.iter().for_each(|line| output.line(line));
        drawn = lines.len();
        output.object(Status::Done, &status);
        let is_over = is_over(passes(&status).map(|pass| pass.phase));
        match args.watch {
            Some(pause) if !is_over => tokio::time::sleep(pause).await,
            _ => return Ok(Status::Done),
        }
    }
}

/// What killed processes have left may go on, also beside a pass that has ended.
fn is_over(phases: impl IntoIterator<Item = PassPhase>) -> bool {
    let mut phases = phases.into_iter();
    phases.all(|phase| matches!(phase, PassPhase::Ended | PassPhase::Stopped))
}

fn lines(status: &JournalStatus) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(run) = &status.run {
        lines.push(format!("from       {}", run.source));
        if let Some(target) = &run.target {
            lines.push(format!("to         {target}"));
        }
        lines.push(states(status));
    }
    if passes(status).next().is_none() {
        lines.push(String::from("processes  none share this journal"));
    }
    lines.extend(passes(status).flat_map(lines_of));
    lines
}

fn passes(status: &JournalStatus) -> impl Iterator<Item = &PassStatus> {
    let passes = [&status.pass, &status.collect, &status.convert];
    passes.into_iter().flatten()
}

fn states(status: &JournalStatus) -> String {
    let states = status.states;
    let states: Vec<String> = [
        ("pending", states.pending),
        ("intent", states.intent),
        ("written", states.written),
        ("verified", states.verified),
        ("present", states.present),
        ("conflict", states.conflict),
    ]
    .iter()
    .filter(|(_, count)| *count > 0)
    .map(|(state, count)| format!("{count} {state}"))
    .collect();
    let states = match states.is_empty() {
        true => String::from("no secrets"),
        false => states.join(", "),
    };
    format!("journal    {states}")
}

fn lines_of(pass: &PassStatus) -> Vec<String> {
    let PassStatus {
        ended,
        pages,
        remaining,
        secrets,
        ..
    } = pass;
    let phase = match (pass.phase, &pass.halt) {
        (PassPhase::Stopped, Some(halt)) => format!("stopped for all: {}", halt.stop),
        (PassPhase::Left, _) => String::from("left: nobody works on it"),
        (phase, _) => phase.as_str().to_owned(),
    };
    let mut lines = vec![
        format!("{:<11}{phase}", pass.command),
        format!("remaining  {remaining} of {secrets} secrets; {ended} of {pages} pages have ended"),
    ];
    if !pass.found.is_empty() {
        lines.push(format!("found      {}", pass.found.join(", ")));
    }
    if let Some(failed) = pass.failed {
        lines.push(format!("failed     {failed}"));
    }
    if let Some(rate) = pass.per_second {
        let left = match rate > 0.0 && pass.phase == PassPhase::Working {
            true => format!(", {} left", whole(*remaining as f64 / rate)),
            false => String::new(),
        };
        lines.push(format!("rate       {rate:.0} secrets per second{left}"));
    }
    let at_work = pass.workers.iter().filter(|worker| worker.holds > 0);
    lines.push(format!("processes  {} at work", at_work.count()));
    for worker in &pass.workers {
        let holds = match worker.lapses_in {
            Some(seconds) => format!("{} pages, for {}", worker.holds, whole(seconds)),
            None => String::from("no page"),
        };
        lines.push(format!(
            "           {}  {holds}; {} secrets done",
            worker.worker, worker.done
        ));
    }
    lines
}

/// Whole seconds, minutes or hours.
fn whole(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds.ceil());
    match duration.unwrap_or(Duration::MAX).as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use secret_persistence_migrate::PassPhase::{Beginning, Ended, Left, Stopped, Working};

    use super::is_over;

    #[test]
    fn whoever_watches_waits_for_all_passes() {
        assert!(is_over([]));
        for over in [Ended, Stopped] {
            assert!(is_over([over]));
            for phase in [Beginning, Ended, Left, Stopped, Working] {
                let both_are = matches!(phase, Ended | Stopped);
                assert_eq!(is_over([over, phase]), both_are, "{over:?}, {phase:?}");
                assert_eq!(is_over([phase, over]), both_are, "{phase:?}, {over:?}");
            }
        }
        assert!(!is_over([Left]));
        assert!(!is_over([Left, Left]));
    }
}
