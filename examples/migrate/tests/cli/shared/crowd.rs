//! Processes of one command, and the database that they work on.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::WORKERS;
use crate::kill::Random;
use crate::lab::{Lab, Ran};
use crate::postgres::Server;

/// Processes of one command, which the test ends whatever happens.
pub(super) struct Crowd<'t> {
    server: &'t Server,
    lab: &'t Lab,
    arguments: Vec<String>,
    program: Option<PathBuf>,
    lease: Duration,
    pub(super) running: Vec<Child>,
    /// Those that are stopped, and until when.
    paused: Vec<(u32, Instant)>,
}

impl<'t> Crowd<'t> {
    pub(super) fn new(server: &'t Server, lab: &'t Lab, arguments: Vec<String>) -> Self {
        Self {
            server,
            lab,
            arguments,
            program: None,
            lease: Duration::from_secs(60),
            running: Vec::new(),
            paused: Vec::new(),
        }
    }

    /// Sets the lease of its processes, which a pause exceeds.
    pub(super) fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self.arguments
            .extend(["--lease".to_owned(), format!("{}s", lease.as_secs())]);
        self
    }

    /// Sets another build of the program.
    pub(super) fn with_program(mut self, program: Option<PathBuf>) -> Self {
        self.program = program;
        self
    }

    pub(super) fn start(&mut self, more: &[&str]) {
        let mut command = self.server.command(self.lab, &self.arguments);
        command.args(more);
        if let Some(program) = &self.program {
            command = with_program(&command, program);
        }
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.running.push(child.spawn().unwrap());
    }

    /// Starts so many as the tests have.
    pub(super) fn start_all(&mut self, more: &[&str]) {
        for _ in 0..WORKERS {
            self.start(more);
        }
    }

    pub(super) fn kill(&mut self, at: usize) {
        let mut child = self.running.remove(at);
        self.paused.retain(|(pid, _)| *pid != child.id());
        // `Child::kill` is SIGKILL, which also ends a process that is stopped.
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(super) fn pause(&mut self, at: usize) {
        let pid = self.running[at].id();
        signal("-STOP", pid);
        self.paused.push((pid, Instant::now() + self.lease * 2));
    }

    pub(super) fn resume_due(&mut self, now: Instant) {
        self.paused.retain(|(pid, until)| {
            let is_due = *until <= now;
            if is_due {
                signal("-CONT", *pid);
            }
            !is_due
        });
    }

    /// One more process is killed and replaced, or paused, if so many are left. Returns what is left.
    pub(super) fn trouble(
        &mut self,
        random: &mut Random,
        (kills, pauses): (usize, usize),
        more: &[&str],
    ) -> (usize, usize) {
        let at = usize::try_from(random.below(self.running.len() as u64)).unwrap();
        if pauses > 0 && (kills == 0 || random.below(3) == 0) {
            self.pause(at);
            (kills, pauses - 1)
        } else {
            self.kill(at);
            self.start(more);
            (kills - 1, pauses)
        }
    }

    /// So many are killed and replaced, and so many paused, at random moments.
    pub(super) fn troubles(
        &mut self,
        random: &mut Random,
        mut left: (usize, usize),
        more: &[&str],
    ) {
        while left != (0, 0) {
            std::thread::sleep(Duration::from_millis(100 + random.below(500)));
            self.resume_due(Instant::now());
            left = self.trouble(random, left, more);
        }
    }

    /// Waits until a query has a row, while paused processes go on in time.
    pub(super) async fn until(&mut self, sql: &str) {
        for _ in 0..3000 {
            self.resume_due(Instant::now());
            if !self.server.texts(sql).await.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no row of {sql}");
    }

    /// Replaces all but so many, which perhaps are paused.
    pub(super) fn replace_but(&mut self, kept: usize) {
        for _ in kept..self.running.len() {
            self.kill(0);
            self.start(&[]);
        }
    }

    /// Waits for all, each of which ends with this status.
    pub(super) fn end(&mut self, status: i32) -> Vec<Ran> {
        self.resume_due(Instant::now() + self.lease * 10);
        let ended = std::mem::take(&mut self.running).into_iter();
        ended
            .map(|child| Ran::from(child.wait_with_output().unwrap()).expect(status))
            .collect()
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The words of a command.
pub(super) fn words(parts: &[&[&str]]) -> Vec<String> {
    parts.concat().into_iter().map(str::to_owned).collect()
}

pub(super) fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

/// The same command with another build of the program.
fn with_program(command: &Command, program: &PathBuf) -> Command {
    let mut other = Command::new(program);
    other
        .args(command.get_args())
        .env_clear()
        .stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            other.env(name, value);
        }
    }
    if let Some(folder) = command.get_current_dir() {
        other.current_dir(folder);
    }
    other
}

/// Lets only so many statements that change a table through, until more are granted. A sequence counts them,
/// so that nobody waits for the transaction of another.
pub(super) struct Gate<'t> {
    server: &'t Server,
}

impl<'t> Gate<'t> {
    /// A gate before each `DELETE` or `UPDATE` of a table.
    pub(super) async fn before(server: &'t Server, change: &str, table: &str) -> Self {
        for sql in [
            "CREATE TABLE granted (changes BIGINT)",
            "INSERT INTO granted VALUES (1)",
            "CREATE SEQUENCE used",
            "SELECT setval('used', 1)",
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN LOOP \
             PERFORM pg_advisory_lock(1); \
             IF (SELECT last_value FROM used) < (SELECT changes FROM granted) THEN \
                PERFORM nextval('used'); PERFORM pg_advisory_unlock(1); RETURN NULL; END IF; \
             PERFORM pg_advisory_unlock(1); PERFORM pg_sleep(0.02); END LOOP; END $$",
            &format!(
                "CREATE TRIGGER wait BEFORE {change} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION wait()"
            ),
        ] {
            server.sql(sql).await;
        }
        Self { server }
    }

    /// Lets so many more through.
    pub(super) async fn grant(&self, changes: u64) {
        let sql = format!("UPDATE granted SET changes = changes + {changes}");
        self.server.sql(&sql).await;
    }

    /// Waits until all that were granted have come through.
    pub(super) async fn until_used_up(&self, crowd: &mut Crowd<'_>) {
        crowd
            .until("SELECT 'used up' FROM granted WHERE changes = (SELECT last_value FROM used)")
            .await;
    }

    /// Lets everything through.
    pub(super) async fn open(&self) {
        self.grant(u64::from(u32::MAX)).await;
    }

    /// Lets nothing through again.
    pub(super) async fn close(&self) {
        let sql = "UPDATE granted SET changes = (SELECT last_value FROM used)";
        self.server.sql(sql).await;
    }
}

/// How many secrets a configuration has.
pub(super) const PER_CONFIGURATION: u64 = 4;

/// Many secrets in a plain table, and the commands that move them to an encrypted one.
pub(super) struct Moved<'t> {
    server: &'t Server,
}

impl<'t> Moved<'t> {
    pub(super) async fn new(server: &'t Server, secrets: u64) -> Self {
        let name = "'airbyte_workspace_00000000-0000-0000-0000-000000000007_secret_' \
                    || md5(n::text)::uuid || '_v1'";
        for sql in [
            "CREATE TABLE secrets (coordinate TEXT PRIMARY KEY, payload TEXT)".to_owned(),
            "CREATE TABLE actor (id INT PRIMARY KEY, configuration JSONB)".to_owned(),
            format!(
                "INSERT INTO secrets SELECT {name}, 'value ' || n FROM generate_series(1, {secrets}) AS n"
            ),
            format!(
                "INSERT INTO actor SELECT (n - 1) / {PER_CONFIGURATION}, \
                 jsonb_object_agg('secret' || n, jsonb_build_object('_secret', {name})) \
                 FROM generate_series(1, {secrets}) AS n GROUP BY 1"
            ),
        ] {
            server.sql(&sql).await;
        }
        Self { server }
    }

    pub(super) fn arguments(&self, command: &str, more: &[&str]) -> Vec<String> {
        // A proof of independence takes longer than the early troubles do.
        let fixed = [
            command,
            "--from",
            &self.server.address("?table=secrets&mode=plain"),
            "--to",
            &self.server.address("?table=copies&mode=encrypted"),
            "--configs",
            &self
                .server
                .address("?table=actor&id=id&configuration=configuration"),
            "--journal",
            &self.server.address(""),
            "--lag",
            "3s",
        ];
        words(&[&fixed, more])
    }

    pub(super) fn run(&self, lab: &Lab, command: &str, more: &[&str]) -> Ran {
        let arguments = self.arguments(command, &[more, &["--json"]].concat());
        self.server.run(lab, &arguments)
    }
}
