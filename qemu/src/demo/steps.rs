//! What the simulated clients try, and what should come of it.

use super::world::{NAME, World};
use crate::flow::Flow;
use crate::probe::{Failure, Probe};
use std::net::SocketAddrV4;
use std::time::Duration;

/// How long one step may take. A round trip takes a millisecond; this leaves room for a very busy host.
const PATIENCE: Duration = Duration::from_millis(2500);

/// Where the default policy lets no client's mail through.
const SMTP: u16 = 25;

/// One thing a client tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Ping the appliance.
    PingGateway,
    /// Ping the next hop outside.
    PingOutside,
    /// Ask a DNS server outside.
    Resolve,
    /// Fetch a page from a server outside, and compare it.
    Fetch,
    /// Ping another client.
    PingClient(usize),
    /// Connect to a mail server outside.
    Mail,
}

/// What should come of a task, by the default policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The appliance itself answers.
    Answer,
    /// It works, and leaves with an external source.
    Translation,
    /// ICMP says that it is prohibited, and nothing leaves.
    Prohibition,
    /// TCP says no, and nothing leaves.
    Reset,
}

/// One step of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Which client.
    pub client: usize,
    /// What it tries.
    pub task: Task,
}

/// What came of a step.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Which step.
    pub step: Step,
    /// The packet that opened the conversation, as the client sent it.
    pub sent: Option<Flow>,
    /// What came of it: a short text.
    pub result: Result<String, Failure>,
}

impl Step {
    /// The steps of all clients.
    pub fn all(clients: usize) -> Vec<Self> {
        (0..clients).flat_map(|client| Self::of(client, clients)).collect()
    }

    /// The steps of one client, in order.
    pub fn of(client: usize, clients: usize) -> Vec<Self> {
        let mut tasks = vec![Task::PingGateway, Task::PingOutside, Task::Resolve, Task::Fetch];
        if clients > 1 {
            tasks.push(Task::PingClient((client + 1) % clients));
        }
        tasks.push(Task::Mail);
        tasks.into_iter().map(|task| Self { client, task }).collect()
    }

    /// What should come of it.
    pub fn expected(&self) -> Expected {
        match self.task {
            Task::PingGateway => Expected::Answer,
            Task::PingOutside | Task::Resolve | Task::Fetch => Expected::Translation,
            Task::PingClient(_) => Expected::Prohibition,
            Task::Mail => Expected::Reset,
        }
    }

    /// What it does, in a few words.
    pub fn describe(&self, world: &World) -> String {
        match self.task {
            Task::PingGateway => "ping its gateway".into(),
            Task::PingOutside => "ping the outside".into(),
            Task::Resolve => "resolve a name".into(),
            Task::Fetch => "fetch a page".into(),
            Task::PingClient(other) => {
                format!("ping {}", world.hosts.get(other).map_or("", |host| &host.identity().name))
            }
            Task::Mail => "send mail".into(),
        }
    }

    /// Takes it. Blocks for as long as it takes, 2.5 s at most.
    pub fn take(&self, world: &World) -> Option<Outcome> {
        let host = world.hosts.get(self.client)?;
        let outside = world.outside;
        let (sent, result) = match self.task {
            Task::PingGateway => {
                told(host.ping(world.gateways.get(self.client).copied()?, PATIENCE), round_trip)
            }
            Task::PingOutside => told(host.ping(outside, PATIENCE), round_trip),
            Task::PingClient(other) => {
                told(host.ping(world.hosts.get(other)?.identity().address(), PATIENCE), round_trip)
            }
            Task::Resolve => told(
                host.resolve(SocketAddrV4::new(outside, world.dns.port()), NAME, PATIENCE),
                |addresses| {
                    let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                    if addresses == [outside] {
                        Ok(format!("it is {}", list.join(", ")))
                    } else {
                        Err(format!("the wrong address: {}", list.join(", ")))
                    }
                },
            ),
            Task::Fetch => {
                told(host.fetch(SocketAddrV4::new(outside, world.web.port()), "/", PATIENCE), |page| {
                    if page == world.page {
                        Ok(format!("{} octets, as sent", page.len()))
                    } else {
                        Err(format!("{} octets, not what was sent", page.len()))
                    }
                })
            }
            Task::Mail => told(host.connect(SocketAddrV4::new(outside, SMTP), PATIENCE), round_trip),
        };
        Some(Outcome { step: *self, sent, result })
    }
}

fn told<T>(
    probe: Probe<T>,
    tell: impl FnOnce(T) -> Result<String, String>,
) -> (Option<Flow>, Result<String, Failure>) {
    let result = probe.outcome.and_then(|value| tell(value).map_err(Failure::Unexpected));
    (probe.opened, result)
}

fn round_trip(time: Duration) -> Result<String, String> {
    Ok(format!("answered in {:.1} ms", time.as_secs_f64() * 1e3))
}

impl Outcome {
    /// Whether it went as it should; `left` is what of it was seen on the uplink.
    pub fn is_as_expected(&self, left: Option<&Flow>, world: &World) -> bool {
        let is_translated = left.is_some_and(|flow| world.external.contains(&flow.source));
        match self.step.expected() {
            Expected::Answer => self.result.is_ok() && left.is_none(),
            Expected::Translation => self.result.is_ok() && is_translated,
            Expected::Prohibition => {
                matches!(&self.result, Err(Failure::Refused(error)) if error.is_administrative())
                    && left.is_none()
            }
            Expected::Reset => self.result == Err(Failure::Reset) && left.is_none(),
        }
    }

    /// The outcome in a few words.
    pub fn describe(&self) -> String {
        match (&self.result, self.step.expected()) {
            (Ok(text), Expected::Answer | Expected::Translation) => text.clone(),
            (Ok(text), _) => format!("not refused: {text}"),
            (
                Err(failure @ (Failure::Refused(_) | Failure::Reset)),
                Expected::Prohibition | Expected::Reset,
            ) => format!("refused: {failure}"),
            (Err(failure), _) => failure.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_takes_each_kind_of_step_once() {
        let steps = Step::all(2);
        assert_eq!(steps.len(), 12);
        for client in 0..2 {
            let tasks: Vec<Task> =
                steps.iter().filter(|step| step.client == client).map(|step| step.task).collect();
            assert_eq!(
                tasks,
                [
                    Task::PingGateway,
                    Task::PingOutside,
                    Task::Resolve,
                    Task::Fetch,
                    Task::PingClient(1 - client),
                    Task::Mail
                ]
            );
        }
    }

    #[test]
    fn a_lonely_client_has_nobody_to_ping() {
        assert!(Step::all(1).iter().all(|step| !matches!(step.task, Task::PingClient(_))));
    }
}
