//! A VM under QEMU: started, heard, asked, ended.

use crate::command::{self, Config};
use crate::console::Console;
use crate::error::{Context, Error, Result};
use crate::link::{Link, Listener};
use crate::stats::Stats;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};

/// The program that plays the machine; `WEIR_QEMU` names another.
pub const QEMU: &str = "qemu-system-x86_64";

/// The oldest QEMU with `stream` and `dgram` netdevs.
const QEMU_MIN: (u32, u32) = (7, 2);

/// How soon the end of QEMU is noticed.
const NAP: Duration = Duration::from_millis(10);

/// The line that the image writes when it forwards contains this.
const READY: &str = " weir: ready";

/// QEMU's name or path.
pub fn program() -> String {
    std::env::var("WEIR_QEMU").unwrap_or_else(|_| QEMU.to_owned())
}

/// Checks that QEMU is there and new enough.
///
/// # Errors
/// It is missing, does not run, or is too old.
pub fn find_qemu() -> Result<()> {
    let program = program();
    let output = Command::new(&program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| missing(&program, &cause))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match version(&text) {
        Some(found) if found >= QEMU_MIN => Ok(()),
        Some((major, minor)) => Err(Error::new(format!(
            "{program} is version {major}.{minor}; Weir's launcher needs {}.{}",
            QEMU_MIN.0, QEMU_MIN.1
        ))
        .advise("install a newer QEMU, or set WEIR_QEMU to the path of one")),
        None => Err(Error::new(format!("{program} --version says nothing that looks like QEMU"))
            .advise("set WEIR_QEMU to the path of qemu-system-x86_64")),
    }
}

fn missing(program: &str, cause: &std::io::Error) -> Error {
    Error::new(format!("cannot run {program}: {cause}")).advise("run qemu/setup.sh, or install QEMU for x86 (Debian: apt install qemu-system-x86), or set WEIR_QEMU to its path")
}

/// Major and minor number in `QEMU emulator version 7.2.22 (…)`.
fn version(text: &str) -> Option<(u32, u32)> {
    let (_, rest) = text.split_once("version ")?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// A running VM. QEMU is in a process group of its own, so that an interrupt from the terminal does not reach it, and
/// ends when this is dropped.
#[derive(Debug)]
pub struct Vm {
    child: Mutex<Child>,
    input: Mutex<ChildStdin>,
    console: Console,
    started: Instant,
}

impl Vm {
    /// Starts QEMU.
    ///
    /// # Errors
    /// QEMU cannot be started. That it does not like its arguments shows later, in [`Vm::ready`].
    pub fn start(config: &Config) -> Result<Self> {
        let program = program();
        let mut words = config.wrapper.clone();
        words.push(program.clone());
        words.extend(config.arguments());
        let (name, arguments) = words.split_first().ok_or_else(|| Error::new("no program to start"))?;
        let started = Instant::now();
        let mut child = Command::new(name)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|cause| missing(name, &cause))?;
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors)) = streams else {
            return Err(Error::new("QEMU has no standard streams"));
        };
        Ok(Self {
            child: Mutex::new(child),
            input: Mutex::new(input),
            console: Console::listen(output, errors),
            started,
        })
    }

    /// What the guest and QEMU have said.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// The process id of QEMU (or of the wrapper in front of it).
    pub fn pid(&self) -> u32 {
        self.lock().id()
    }

    /// Takes the connection of one of this VM's netdevs.
    ///
    /// # Errors
    /// QEMU ended, or does not connect in time; both with what it said.
    pub fn connect(&self, listener: &Listener, timeout: Duration) -> Result<Link> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(link) = listener.try_accept()? {
                return Ok(link);
            }
            self.check_alive()?;
            if Instant::now() >= deadline {
                return Err(self.failure("QEMU did not connect its network"));
            }
            thread::sleep(NAP);
        }
    }

    /// Whether QEMU still runs.
    ///
    /// # Errors
    /// It does not; with how it ended and the end of the console.
    pub fn check_alive(&self) -> Result<()> {
        let Some(status) = self.exit_status() else { return Ok(()) };
        self.console.wait_end(Duration::from_secs(1));
        Err(self.failure(&format!("QEMU ended ({status})")))
    }

    /// Ends QEMU at once.
    pub fn kill(&self) {
        // Fails only when QEMU is gone already.
        let _ = self.lock().kill();
    }

    /// Waits until the image says that it forwards; the time since QEMU was started
    /// (as much later as this is called late).
    ///
    /// # Errors
    /// QEMU ended, or the time is up; both with the end of the console.
    pub fn ready(&self, timeout: Duration) -> Result<Duration> {
        self.expect(READY, timeout).map(|_| self.started.elapsed())
    }

    /// Waits for a line of the console that contains `text`, the lines that are there already included.
    ///
    /// # Errors
    /// QEMU ended, or the time is up; both with the end of the console.
    pub fn expect(&self, text: &str, timeout: Duration) -> Result<String> {
        self.line_after(0, timeout, |line| line.contains(text))
            .map_err(|error| Error::new(format!("waiting for {text:?} on the console: {}", error.message())))
    }

    fn line_after(&self, from: usize, timeout: Duration, is_it: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            // Asked before looking: what was said before the end is there afterwards.
            let ended = self.exit_status();
            if ended.is_some() {
                self.console.wait_end(Duration::from_secs(1));
            }
            if let Some(line) = self.console.find(from, NAP, &is_it) {
                return Ok(line);
            }
            if let Some(status) = ended {
                return Err(self.failure(&format!("QEMU ended ({status})")));
            }
            if Instant::now() >= deadline {
                return Err(self.failure(&format!("nothing within {:.1} s", timeout.as_secs_f32())));
            }
        }
    }

    /// An error with the end of the console, where the cause usually is.
    fn failure(&self, what: &str) -> Error {
        let tail = self.console.tail(12);
        let tail = if tail.is_empty() { "(the console is empty)".to_owned() } else { tail.join("\n  | ") };
        Error::new(format!("{what}; the console ends with\n  | {tail}"))
    }

    /// Writes a command to the serial line.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn send(&self, command: &str) -> Result<()> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        input
            .write_all(format!("{command}\n").as_bytes())
            .and_then(|()| input.flush())
            .map_err(|cause| self.failure(&format!("cannot write to the console: {cause}")))
    }

    /// Writes a command and waits for the line that answers it: the first new one that `is_it` accepts.
    ///
    /// # Errors
    /// QEMU ended, or the time is up.
    pub fn ask(&self, command: &str, timeout: Duration, is_it: impl Fn(&str) -> bool) -> Result<String> {
        let from = self.console.lines();
        self.send(command)?;
        self.line_after(from, timeout, is_it)
            .map_err(|error| Error::new(format!("asking the appliance for {command:?}: {}", error.message())))
    }

    /// The appliance's own figures.
    ///
    /// # Errors
    /// It does not answer in time, or with something else.
    pub fn stats(&self, timeout: Duration) -> Result<Stats> {
        let line = self.ask("stats", timeout, |line| line.starts_with('{') && line.ends_with('}'))?;
        serde_json::from_str(&line).context(|| format!("the appliance's figures make no sense: {line}"))
    }

    /// How QEMU ended, if it has.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        // An error means that there is no such child any more, which does not happen while we hold it.
        self.lock().try_wait().ok().flatten()
    }

    /// Waits for QEMU to end.
    ///
    /// # Errors
    /// It does not in time.
    pub fn wait(&self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.exit_status() {
                Some(status) => return Ok(status),
                None if Instant::now() >= deadline => {
                    return Err(
                        self.failure(&format!("QEMU still runs after {:.1} s", timeout.as_secs_f32()))
                    );
                }
                None => thread::sleep(NAP),
            }
        }
    }

    /// Tells the appliance to power off, and waits for QEMU to end.
    ///
    /// # Errors
    /// It does not in time.
    pub fn power_off(&self, timeout: Duration) -> Result<ExitStatus> {
        self.send("poweroff")?;
        self.wait(timeout)
    }

    /// Copies the console to a file, what was said so far included.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_log(&self, path: &Path) -> Result<()> {
        self.console.copy_to(path)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let mut child = self.lock();
        // Both fail only when QEMU is gone already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The whole command line, as a shell would take it.
pub fn command_line(config: &Config) -> String {
    let mut words = config.wrapper.clone();
    words.push(program());
    words.extend(config.arguments());
    command::quote(&words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accel::Accel;

    /// A VM whose "QEMU" is a shell script.
    fn shell(script: &str) -> Vm {
        let mut config = Config::new("image", Accel::Tcg);
        config.wrapper = ["sh", "-c", script].map(str::to_owned).to_vec();
        Vm::start(&config).unwrap()
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_version_is_read() {
        assert_eq!(version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\n"), Some((7, 2)));
        assert_eq!(version("QEMU emulator version 10.0.0"), Some((10, 0)));
        assert_eq!(version("something else"), None);
    }

    #[test]
    fn ready_and_stats_come_from_the_serial_line() {
        let vm = shell(
            r#"echo "info weir: ready boot_us=7"; while read -r line; do echo "info weir: noise"; [ "$line" = stats ] && echo '{"uptime_ms":1,"sessions":4,"mappings":2,"ports":[]}'; done"#,
        );
        vm.ready(SOON).unwrap();
        assert_eq!(vm.stats(SOON).unwrap().sessions, 4);
        assert_eq!(vm.stats(SOON).unwrap().mappings, 2);
    }

    #[test]
    fn an_early_end_shows_what_was_said() {
        let vm = shell("echo boom >&2; exit 3");
        let error = vm.ready(SOON).unwrap_err().to_string();
        assert!(error.contains("boom") && error.contains("ended"), "{error}");
        assert_eq!(vm.wait(SOON).unwrap().code(), Some(3));
    }

    #[test]
    fn silence_ends_in_time() {
        let vm = shell("read -r line");
        let began = Instant::now();
        assert!(vm.ready(Duration::from_millis(50)).is_err());
        assert!(began.elapsed() < SOON);
    }

    #[test]
    fn a_dropped_vm_is_gone() {
        let vm = shell("exec sleep 100");
        let process = format!("/proc/{}", vm.pid());
        assert!(Path::new(&process).exists());
        drop(vm);
        assert!(!Path::new(&process).exists());
    }

    #[test]
    fn power_off_gives_the_exit_status() {
        let vm = shell(r#"while read -r line; do [ "$line" = poweroff ] && exit 5; done"#);
        assert_eq!(vm.power_off(SOON).unwrap().code(), Some(5));
    }
}
