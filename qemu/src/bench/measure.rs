//! The measurements, each between a client and a server through a firewall that is up.

use super::connections::Opened;
use super::datagrams::{Received, Sent};
use super::echo::Trips;
use super::lab::{Lab, SERVER};
use super::meter::Cpu;
use super::process::Process;
use super::report::Figures;
use crate::error::{Context, Error, Result};
use crate::netns::{Service, Transport};
use serde_json::Value;
use std::time::Duration;

/// The port of the datagrams' sink.
const PORT: u16 = 5001;

/// Datagrams a second: where the ladder begins, what it never reaches.
const LADDER: std::ops::Range<u32> = 10_000..1_500_000;

/// The time in which streams come to their full rate.
const SLOW_START: Duration = Duration::from_secs(1);

/// What a process may take beyond its own time.
const GRACE: Duration = Duration::from_secs(15);

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What QEMU used, in microseconds a thing.
fn micros(time: Duration, things: u64) -> f64 {
    time.as_secs_f64() * 1e6 / things.max(1) as f64
}

/// Keeps the guest's instructions a thing, if they were counted.
fn instructions(figures: &mut Figures, key: &'static str, used: Cpu, things: u64) {
    if used.instructions > 0 {
        figures.set(key, used.instructions as f64 / things.max(1) as f64);
    }
}

/// Idle CPU.
pub fn idle(lab: &Lab<'_>, time: Duration, figures: &mut Figures) -> Result<()> {
    // What boot has left to do is done by then.
    lab.stop.sleep(Duration::from_secs(1))?;
    let before = lab.cpu()?;
    let began = std::time::Instant::now();
    lab.stop.sleep(time)?;
    let used = lab.cpu()?.since(before).total();
    figures.set("idle_percent", 100.0 * used.as_secs_f64() / began.elapsed().as_secs_f64());
    Ok(())
}

/// Round trips of echo requests, 100 a second.
pub fn round_trips(lab: &Lab<'_>, time: Duration, figures: &mut Figures) -> Result<()> {
    let words = format!("echo {SERVER} 10 {}", millis(time));
    let before = lab.cpu()?;
    let trips: Trips = Process::agent(&lab.client, &words, lab.stop)?.result(time + GRACE)?;
    instructions(figures, "rtt_instructions", lab.cpu()?.since(before), trips.micros.len() as u64);
    quantiles(&trips, ["rtt_us", "rtt_p99_us"], figures)
}

/// The same while four streams go up.
pub fn round_trips_under_load(lab: &Lab<'_>, time: Duration, figures: &mut Figures) -> Result<()> {
    let streams = Streams::start(lab, time + 2 * SLOW_START, false)?;
    lab.stop.sleep(SLOW_START)?;
    let words = format!("echo {SERVER} 10 {}", millis(time));
    let trips: Trips = Process::agent(&lab.client, &words, lab.stop)?.result(time + GRACE)?;
    streams.result()?;
    quantiles(&trips, ["load_rtt_us", "load_rtt_p99_us"], figures)
}

fn quantiles(trips: &Trips, keys: [&'static str; 2], figures: &mut Figures) -> Result<()> {
    let (Some(median), Some(p99)) = (trips.quantile(0.5), trips.quantile(0.99)) else {
        return Err(Error::new(format!("none of {} echo requests was answered", trips.sent)));
    };
    figures.set(keys[0], median);
    figures.set(keys[1], p99);
    Ok(())
}

/// Four streams up, then four down.
pub fn streams(lab: &Lab<'_>, time: Duration, figures: &mut Figures) -> Result<()> {
    let (rate, cost) = stream(lab, time, false)?;
    figures.set("tcp_up_mbps", rate);
    figures.set("tcp_up_cpu_s_per_gb", cost);
    let (rate, cost) = stream(lab, time, true)?;
    figures.set("tcp_down_mbps", rate);
    figures.set("tcp_down_cpu_s_per_gb", cost);
    Ok(())
}

/// Mbit/s, and seconds of QEMU's CPU time a gigabyte.
fn stream(lab: &Lab<'_>, time: Duration, is_down: bool) -> Result<(f64, f64)> {
    let before = lab.cpu()?;
    let (bits_per_second, octets) = Streams::start(lab, time, is_down)?.result()?;
    let used = lab.cpu()?.since(before);
    Ok((bits_per_second / 1e6, used.total().as_secs_f64() / (octets / 1e9)))
}

/// Four TCP streams that are under way.
struct Streams<'a> {
    client: Process<'a>,
    _server: Service,
    time: Duration,
}

impl<'a> Streams<'a> {
    fn start(lab: &Lab<'a>, time: Duration, is_down: bool) -> Result<Self> {
        let log = lab.scratch.join("iperf3.log");
        let server = format!("iperf3 -s -1 -B {SERVER}");
        let server = lab.outside.serve(server.split_whitespace(), Transport::Tcp, 5201, &log)?;
        let seconds = time.as_secs().max(1);
        let mut words = format!("iperf3 -c {SERVER} -t {seconds} -P 4 -J --connect-timeout 5000");
        if is_down {
            words += " -R";
        }
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        Ok(Self { client: Process::start(&lab.client, &words, lab.stop)?, _server: server, time })
    }

    /// Bits a second and octets that arrived.
    fn result(mut self) -> Result<(f64, f64)> {
        received(&self.client.rest(self.time + GRACE)?)
    }
}

/// Bits a second and octets that arrived, as iperf3 says.
fn received(text: &str) -> Result<(f64, f64)> {
    let value: Value = serde_json::from_str(text).context(|| format!("iperf3 said {text}"))?;
    if let Some(error) = value["error"].as_str() {
        return Err(Error::new(format!("iperf3: {error}")));
    }
    let sum = &value["end"]["sum_received"];
    let number = |name: &str| sum[name].as_f64().filter(|number| *number > 0.0);
    number("bits_per_second")
        .zip(number("bytes"))
        .ok_or_else(|| Error::new(format!("iperf3 says nothing of what arrived: {text}")))
}

/// One step of the ladder.
struct Trial {
    delivered_per_second: f64,
    delivered: u64,
    used: Cpu,
}

/// Datagrams, faster and faster until fewer than half arrive.
pub fn datagrams(lab: &Lab<'_>, time: Duration, figures: &mut Figures) -> Result<()> {
    // Addresses and flows are known from then on.
    trial(lab, LADDER.start / 5, time / 4)?;
    let mut best: Option<Trial> = None;
    let mut rate = LADDER.start;
    while LADDER.contains(&rate) {
        let trial = trial(lab, rate, time)?;
        let is_saturated = trial.delivered_per_second < 0.5 * f64::from(rate);
        if best.as_ref().is_none_or(|best| trial.delivered_per_second > best.delivered_per_second) {
            best = Some(trial);
        }
        if is_saturated {
            break;
        }
        rate += rate / 2;
    }
    let best = best.filter(|best| best.delivered > 0).ok_or_else(|| Error::new("no datagram arrived"))?;
    figures.set("udp_pps", best.delivered_per_second);
    instructions(figures, "udp_instructions", best.used, best.delivered);
    figures.set("udp_vcpu_us", micros(best.used.vcpu, best.delivered));
    figures.set("udp_rest_us", micros(best.used.rest, best.delivered));
    Ok(())
}

fn trial(lab: &Lab<'_>, rate: u32, time: Duration) -> Result<Trial> {
    let most = millis(time) + 3000;
    let mut sink = Process::agent(&lab.outside, &format!("datagram-sink {PORT} {most}"), lab.stop)?;
    sink.ready()?;
    let before = lab.cpu()?;
    let words = format!("datagram-source {SERVER} {PORT} {rate} {}", millis(time));
    let _sent: Sent = Process::agent(&lab.client, &words, lab.stop)?.result(time + GRACE)?;
    let used = lab.cpu()?.since(before);
    let received: Received = sink.result(time + GRACE)?;
    // A few that arrive at once are no rate.
    let seconds = received.seconds.max(0.9 * time.as_secs_f64());
    Ok(Trial {
        delivered_per_second: received.datagrams as f64 / seconds,
        delivered: received.datagrams,
        used,
    })
}

/// Connections, opened and closed.
pub fn connections(lab: &Lab<'_>, time: Duration, figures: &mut Figures) -> Result<()> {
    let (opened, used) = open(lab, time)?;
    if opened.failed > 0 {
        eprintln!("  {} connections failed, {} were opened", opened.failed, opened.opened);
    }
    instructions(figures, "conn_instructions", used, opened.opened);
    figures.set("conns_per_s", opened.opened as f64 / opened.seconds);
    figures.set("conn_vcpu_us", micros(used.vcpu, opened.opened));
    figures.set("conn_rest_us", micros(used.rest, opened.opened));
    Ok(())
}

fn open(lab: &Lab<'_>, time: Duration) -> Result<(Opened, Cpu)> {
    let words = format!("connection-sink {}", millis(time) + 1000);
    let mut sink = Process::agent(&lab.outside, &words, lab.stop)?;
    sink.ready()?;
    let before = lab.cpu()?;
    let words = format!("connection-source {SERVER} {}", millis(time));
    let opened: Opened = Process::agent(&lab.client, &words, lab.stop)?.result(time + GRACE)?;
    let used = lab.cpu()?.since(before);
    sink.rest(GRACE)?;
    if opened.opened == 0 {
        return Err(Error::new(format!("no connection was opened: {opened:?}")));
    }
    Ok((opened, used))
}

/// Whether a firewall that has just booted does its work: echo replies, and connections for a second.
pub fn works(lab: &Lab<'_>) -> Result<()> {
    round_trips(lab, Duration::from_millis(500), &mut Figures::default())?;
    open(lab, Duration::from_secs(1))?;
    lab.cpu().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iperf3_tells_what_arrived() {
        let text =
            r#"{"end":{"sum_sent":{"bytes":9},"sum_received":{"bytes":1000,"bits_per_second":8000.5}}}"#;
        assert_eq!(received(text), Ok((8000.5, 1000.0)));
        for (text, said) in [
            (r#"{"error":"unable to connect"}"#, "unable to connect"),
            (r#"{"end":{"sum_received":{"bytes":0,"bits_per_second":0}}}"#, "nothing"),
            ("no JSON", "no JSON"),
        ] {
            assert!(received(text).unwrap_err().to_string().contains(said), "{text}");
        }
    }
}
