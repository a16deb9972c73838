//! The image between real network stacks: Linux namespaces on taps, and a Linux client VM.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use netback::port::MTU_MAX;
use qemu::backend::Backend;
use qemu::command::{Config, Machine, Netdev, Port};
use qemu::scratch::Scratch;
use qemu::servers::Server;
use qemu::vm::Vm;
use smoltcp::wire::EthernetAddress;
use tests::Chance;
use tests::client_vm::{Kernel, sha256};
use tests::image::{bare, busy, late_allocations, macs, plan, ready, stats};
use tests::netns::{Transport, obstacle, skip};
use tests::taps::{Wiring, World, on_taps};

/// What is fetched: enough that a connection runs for a while.
const FILE: usize = 50_000_000;

/// Whether namespaces can be had; says why not.
fn possible(test: &str) -> bool {
    let obstacle = obstacle();
    if let Some(reason) = &obstacle {
        skip(test, reason);
    }
    obstacle.is_none()
}

fn assert_same_file(fetched: &Path, original: &Path) {
    let [fetched, original] = [fetched, original].map(|path| fs::read(path).expect("the file is there"));
    assert_eq!(fetched.len(), original.len(), "octets of the file");
    assert_eq!(sha256(&fetched), sha256(&original));
}

/// Pings, then fetches a file.
fn main_job(wiring: Wiring) {
    let world = World::new(wiring);
    let link = world.client.run("ip -details link show dev eth0");
    let header = if wiring == Wiring::Plain { "vnet_hdr off" } else { "vnet_hdr on" };
    assert!(link.contains(header), "{link}");
    let offloads = world.client.run("ethtool -k eth0");
    let checksums = if wiring == Wiring::Plain { "tx-checksumming: off" } else { "tx-checksumming: on" };
    assert!(offloads.contains(checksums), "{offloads}");
    let said = world.client.run("ping -c 5 -i 0.1 -W 5 198.51.100.1");
    assert!(said.contains("5 received, 0% packet loss") && said.contains("ttl=63"), "{said}");
    // In three fragments, both ways.
    let said = world.client.run("ping -c 3 -i 0.1 -W 5 -s 4000 198.51.100.1");
    assert!(said.contains("3 received, 0% packet loss"), "{said}");
    let (_server, file) = world.serve_file(FILE);
    let fetched = world.scratch.join("fetched");
    let url = "http://198.51.100.1/file";
    world.client.run(&format!("curl --silent --show-error --output {} {url}", fetched.display()));
    assert_same_file(&fetched, &file);
    let log = fs::read_to_string(world.scratch.join("server.log")).expect("the server's log");
    assert!(log.contains("192.0.2.2 ") && !log.contains("10.0.1.2"), "{log}");
    world.assert_sound();
}

#[test]
fn a_file_crosses_with_unfinished_checksums() {
    if possible("a_file_crosses_with_unfinished_checksums") {
        let _machine = busy();
        main_job(Wiring::Offloading);
    }
}

#[test]
fn a_file_crosses_to_a_receiver_that_checks_checksums() {
    if possible("a_file_crosses_to_a_receiver_that_checks_checksums") {
        let _machine = busy();
        main_job(Wiring::Checking);
    }
}

#[test]
fn a_file_crosses_plain_taps() {
    if possible("a_file_crosses_plain_taps") {
        let _machine = busy();
        main_job(Wiring::Plain);
    }
}

#[test]
fn traceroute_shows_the_appliance_then_the_server() {
    if !possible("traceroute_shows_the_appliance_then_the_server") {
        return;
    }
    let _machine = busy();
    let world = World::new(Wiring::Checking);
    for method in ["", "-I", "-T -p 81"] {
        let said = world.client.run(&format!("traceroute -n -q 1 -w 5 {method} 198.51.100.1"));
        let hops: Vec<Vec<_>> =
            said.lines().skip(1).map(|line| line.split_whitespace().take(2).collect()).collect();
        assert_eq!(hops, [["1", "10.0.1.1"], ["2", "198.51.100.1"]], "{method}: {said}");
    }
    let (arrived, said) = world.client.attempt("ping -c 1 -t 1 -W 5 198.51.100.1");
    assert!(!arrived && said.contains("From 10.0.1.1") && said.contains("Time to live exceeded"), "{said}");
    world.assert_sound();
}

/// Tells who sends it something the hash of it.
const HASHING_SERVER: &str = "
import hashlib, socket
listener = socket.create_server(('198.51.100.1', 9))
s, peer = listener.accept()
sha256 = hashlib.sha256()
while octets := s.recv(65536):
    sha256.update(octets)
s.sendall(sha256.hexdigest().encode())
";
const UPLOADING_CLIENT: &str = "
import socket
s = socket.create_connection(('198.51.100.1', 9), 10)
s.sendall(bytes(number % 251 for number in range(3000000)))
s.shutdown(socket.SHUT_WR)
print(s.recv(100).decode())
";

/// The uplink takes 1400 octets, as its device says: RFC 1191 for those who listen, fragments for those who do not.
#[test]
fn a_narrow_uplink_is_told_to_clients() {
    if !possible("a_narrow_uplink_is_told_to_clients") {
        return;
    }
    let _machine = busy();
    let mut config = on_taps(Wiring::Offloading);
    config.ports[0].properties.push("host_mtu=1400".into());
    let world = World::with(Wiring::Offloading, config);
    let (arrived, said) = world.client.attempt("ping -c 1 -W 5 -M do -s 1400 198.51.100.1");
    assert!(!arrived && said.contains("From 10.0.1.1") && said.contains("mtu = 1400"), "{said}");
    world.client.run("ip route flush cache");
    let said = world.client.run("ping -c 3 -i 0.1 -W 5 -M dont -s 1400 198.51.100.1");
    assert!(said.contains("3 received, 0% packet loss"), "{said}");
    world.client.run("ip route flush cache");
    let log = world.scratch.join("server.log");
    let _server = world.outside.serve(["python3", "-c", HASHING_SERVER], Transport::Tcp, 9, &log);
    let expected: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    assert_eq!(world.client.python(UPLOADING_CLIENT).trim(), sha256(&expected));
    let route = world.client.run("ip route get 198.51.100.1");
    assert!(route.contains("mtu 1400"), "{route}");
    world.assert_sound();
}

/// Links that take more than Ethernet's 1500 octets, as much as a port does: packets cross whole.
#[test]
fn a_wide_link_is_used_to_the_full() {
    if !possible("a_wide_link_is_used_to_the_full") {
        return;
    }
    let _machine = busy();
    for wiring in [Wiring::Offloading, Wiring::Plain] {
        let mut config = on_taps(wiring);
        for words in &mut config.extra {
            if words.starts_with("virtio-net-pci,") {
                words.push_str(",host_mtu=9000,mrg_rxbuf=off");
            }
        }
        for port in &mut config.ports {
            port.properties.push("host_mtu=9000".into());
        }
        let world = World::with(wiring, config);
        for host in [&world.client, &world.outside] {
            host.run(&format!("ip link set dev eth0 mtu {MTU_MAX}"));
        }
        let said = format!("larger packets than fit are lost name=work mtu=9000 fits={MTU_MAX}");
        assert!(world.vm.console().text().contains(&said), "{}", world.vm.console().text());
        let largest = MTU_MAX - 28;
        let said = world.client.run(&format!("ping -c 3 -i 0.1 -W 5 -M do -s {largest} 198.51.100.1"));
        assert!(said.contains("3 received, 0% packet loss"), "{said}");
        let gateway = world.client.run(&format!("ping -c 3 -i 0.1 -W 5 -M do -s {largest} 10.0.1.1"));
        assert!(gateway.contains("3 received, 0% packet loss"), "{gateway}");
        let log = world.scratch.join("server.log");
        let _server = world.outside.serve(["python3", "-c", HASHING_SERVER], Transport::Tcp, 9, &log);
        let expected: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
        assert_eq!(world.client.python(UPLOADING_CLIENT).trim(), sha256(&expected));
        world.assert_sound();
    }
}

#[test]
fn iperf_runs_both_ways() {
    if !possible("iperf_runs_both_ways") {
        return;
    }
    let _machine = busy();
    let world = World::new(Wiring::Offloading);
    let _server = world.serve("iperf3 --server --bind 198.51.100.1 --port 5201", Transport::Tcp, 5201);
    for direction in ["", "--reverse"] {
        let said = world.client.run(&format!("iperf3 --client 198.51.100.1 --time 2 --json {direction}"));
        let rate = figure(&said, &["sum_received", "bits_per_second"]);
        println!("TCP {direction}: {:.0} Mbit/s", rate / 1e6);
        // A hundredth of what emulation does here.
        assert!(rate > 5e6, "{said}");
        let datagrams = "--udp --bitrate 5M --length 1200 --time 2 --json";
        let said = world.client.run(&format!("iperf3 --client 198.51.100.1 {datagrams} {direction}"));
        let lost = figure(&said, &["\"sum\"", "lost_percent"]);
        println!("UDP {direction}: {lost} % lost");
        assert!(lost < 10.0 && figure(&said, &["\"sum\"", "\"packets\""]) > 500.0, "{said}");
    }
    world.assert_sound();
}

/// The number behind these words of a JSON text, found one behind the other.
fn figure(text: &str, path: &[&str]) -> f64 {
    let mut rest = text;
    for word in path {
        rest = rest.split_once(word).unwrap_or_else(|| panic!("{word} in {text}")).1;
    }
    let number = rest.trim_start_matches(['"', ':', ' ', '\t']);
    let end = number.find([',', '\n', '}']).unwrap_or(number.len());
    number[..end].trim().parse().unwrap_or_else(|_| panic!("{path:?} in {text}"))
}

#[test]
fn names_resolve_over_both_transports() {
    if !possible("names_resolve_over_both_transports") {
        return;
    }
    let _machine = busy();
    let world = World::new(Wiring::Checking);
    let long = "long.".to_owned() + &"x".repeat(200);
    let words = format!(
        "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file={} --bind-interfaces --listen-address=198.51.100.1 --address=/page.weir.example/198.51.100.7 --txt-record=text.weir.example,{long},{long},{long},{long}",
        world.scratch.join("dnsmasq.pid").display()
    );
    let _server = world.serve(&words, Transport::Udp, 53);
    for transport in ["+notcp", "+tcp"] {
        let said = world.client.run(&format!("dig @198.51.100.1 page.weir.example +short {transport}"));
        assert_eq!(said.trim(), "198.51.100.7", "{transport}");
        let said =
            world.client.run(&format!("dig @198.51.100.1 text.weir.example txt +bufsize=1232 {transport}"));
        assert!(said.matches(&long).count() == 4 && said.contains("status: NOERROR"), "{said}");
    }
    world.assert_sound();
}

/// Sends a word, is silent while keepalives run, and sends another; prints what came back.
const SILENT_CLIENT: &str = "
import socket, time
s = socket.create_connection(('198.51.100.1', 7), 10)
for option, value in (socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 2):
    s.setsockopt(socket.IPPROTO_TCP, option, value)
s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
s.sendall(b'before ')
print(s.recv(100).decode(), end='')
time.sleep(5)
s.sendall(b'after')
print(s.recv(100).decode(), end='')
";
const ECHO_SERVER: &str = "
import socket
listener = socket.create_server(('198.51.100.1', 7))
s, peer = listener.accept()
while octets := s.recv(100):
    s.sendall(octets)
";

#[test]
fn a_silent_connection_lives_by_its_keepalives() {
    if !possible("a_silent_connection_lives_by_its_keepalives") {
        return;
    }
    let _machine = busy();
    let world = World::new(Wiring::Offloading);
    let log = world.scratch.join("server.log");
    let _server = world.outside.serve(["python3", "-c", ECHO_SERVER], Transport::Tcp, 7, &log);
    assert_eq!(world.client.python(SILENT_CLIENT), "before after");
    let said = world.client.run("nstat -asz TcpExtTCPKeepAlive");
    let sent = said.split_whitespace().skip_while(|word| *word != "TcpExtTCPKeepAlive").nth(1);
    assert!(sent.and_then(|count| count.parse().ok()).is_some_and(|count: u32| count >= 3), "{said}");
    world.assert_sound();
}

#[test]
fn a_static_forward_serves_the_outside() {
    if !possible("a_static_forward_serves_the_outside") {
        return;
    }
    let _machine = busy();
    for wiring in [Wiring::Offloading, Wiring::Checking, Wiring::Plain] {
        let world = World::new(wiring);
        let page = Chance::new(6).octets(300_000);
        fs::write(world.scratch.join("page"), &page).expect("room for a page");
        let directory = world.scratch.path().display().to_string();
        let words = ["python3", "-u", "-m", "http.server", "--directory", directory.as_str(), "80"];
        let log = world.scratch.join("client.log");
        let _server = world.client.serve(words, Transport::Tcp, 80, &log);
        let fetched = world.scratch.join("fetched");
        let output = fetched.display();
        world
            .outside
            .run(&format!("curl --silent --show-error --output {output} http://192.0.2.2:8080/page"));
        assert_eq!(sha256(&fs::read(&fetched).expect("the page was fetched")), sha256(&page));
        // The client sees who asks.
        let log = fs::read_to_string(log).expect("the server's log");
        assert!(log.contains("192.0.2.1 "), "{log}");
        world.assert_sound();
    }
}

#[test]
fn a_refusal_is_understood_by_linux() {
    if !possible("a_refusal_is_understood_by_linux") {
        return;
    }
    let _machine = busy();
    let world = World::new(Wiring::Offloading);
    for refused in ["10.0.2.2", "198.51.100.66"] {
        let (arrived, said) = world.client.attempt(&format!("ping -c 1 -W 5 {refused}"));
        assert!(!arrived && said.contains("From 10.0.1.1") && said.contains("Packet filtered"), "{said}");
    }
    for (url, reason) in
        [("http://198.51.100.66/", "No route to host"), ("http://198.51.100.1:25/", "refused")]
    {
        let began = Instant::now();
        let (arrived, said) = world.client.attempt(&format!("curl --silent --verbose --max-time 20 {url}"));
        assert!(!arrived && said.contains(reason), "{said}");
        assert!(began.elapsed() < Duration::from_secs(10), "a refusal is told at once");
    }
    // Nobody comes in unasked; the appliance itself answers pings.
    let (arrived, said) = world.outside.attempt("curl --silent --max-time 1 http://192.0.2.2:81/");
    assert!(!arrived, "{said}");
    world.outside.run("ping -c 1 -W 5 192.0.2.2");
    world.assert_sound();
}

/// What the client VM does: `$1` is the web server's port.
fn client_script(server: &str, port: u16) -> String {
    format!(
        "ip address add 10.0.1.2/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.1.1
ping -c 3 -W 5 10.0.1.1 && echo client: gateway answers
ping -c 3 -W 5 {server} && echo client: server answers
printf 'GET /page HTTP/1.0\\r\\n\\r\\n' | nc {server} {port} > /reply
sed '1,/^\\r$/d' /reply > /page
echo client: sha256 $(sha256sum < /page)
awk '/^(Icmp|Tcp|Udp):/ {{ if (p != $1) {{ p = $1; for (i = 2; i <= NF; i++) n[i] = $i }} else for (i = 2; i <= NF; i++) if (n[i] == \"InCsumErrors\") e += $i }} END {{ print \"client: checksum errors \" e }}' /proc/net/snmp"
    )
}

/// What the web server serves: text, so that the shell's tools leave it alone.
fn page() -> Vec<u8> {
    let mut chance = Chance::new(8);
    (0..100_000).flat_map(|_| format!("{:032x}\n", u128::from(chance.word())).into_bytes()).collect()
}

fn client_mac() -> EthernetAddress {
    EthernetAddress([0x52, 0x54, 0, 0x77, 1, 2])
}

/// Runs the client to its end and looks at what it found.
fn assert_client_is_served(client: &Config, page: &[u8]) {
    let vm = Vm::start(client).unwrap_or_else(|error| panic!("{error}"));
    let status = vm.wait(Duration::from_secs(90)).unwrap_or_else(|error| panic!("{error}"));
    // What it said last may still be on its way.
    thread::sleep(Duration::from_millis(100));
    let text = vm.console().text();
    assert!(status.success(), "{text}");
    for line in
        ["gateway answers", "server answers", "checksum errors 0", &format!("sha256 {}", sha256(page))]
    {
        assert!(text.contains(&format!("client: {line}")), "{line} in {text}");
    }
}

/// No root: the client on a socket of the appliance, the uplink on QEMU's user-mode network.
#[test]
fn a_linux_vm_fetches_a_page_over_a_socket() {
    let kernel = match Kernel::find() {
        Ok(kernel) => kernel,
        Err(reason) => return skip("a_linux_vm_fetches_a_page_over_a_socket", reason),
    };
    let _machine = busy();
    let page = page();
    let web = Server::web(page.clone()).unwrap_or_else(|error| panic!("{error}"));
    let user = plan().user_network().unwrap_or_else(|error| panic!("{error}"));
    let scratch = Scratch::new().expect("a temporary directory");
    let wire = || Netdev::Backend(Backend::Stream(scratch.join("wire")));
    for machine in [Machine::Q35, Machine::Microvm] {
        let [uplink, work, lab] = macs();
        let mut config = bare(machine);
        let idle = Netdev::Backend(Backend::User);
        config.ports =
            vec![Port::new(uplink, Netdev::User(user)), Port::new(work, wire()), Port::new(lab, idle)];
        let vm = ready(&config);
        let script = client_script(&user.host.to_string(), web.port());
        assert_client_is_served(&kernel.vm(&scratch, &script, Port::new(client_mac(), wire())), &page);
        assert_eq!(late_allocations(&stats(&vm)), 0);
        drop(vm);
        // The socket's name stays behind.
        let _ = fs::remove_file(scratch.join("wire"));
    }
}

/// With the offloads of a real guest: the client's tap and the appliance's on one bridge.
#[test]
fn a_linux_vm_fetches_a_page_over_taps() {
    const NAME: &str = "a_linux_vm_fetches_a_page_over_taps";
    let kernel = match Kernel::find() {
        Ok(kernel) => kernel,
        Err(reason) => return skip(NAME, reason),
    };
    if !possible(NAME) {
        return;
    }
    let _machine = busy();
    let world = World::new(Wiring::Checking);
    let page = page();
    fs::write(world.scratch.join("page"), &page).expect("room for a page");
    let words = format!("python3 -u -m http.server --directory {} 80", world.scratch.path().display());
    let _server = world.serve(&words, Transport::Tcp, 80);
    // The namespace becomes a switch: its address goes to the VM.
    world.client.run("ip address flush dev eth0");
    world.client.run("ip tuntap add dev guest mode tap");
    world.client.run("ip link add name bridge type bridge forward_delay 0");
    for device in ["eth0", "guest"] {
        world.client.run(&format!("ip link set dev {device} master bridge up"));
    }
    world.client.run("ip link set dev bridge up");
    let port = Port::new(client_mac(), Netdev::Backend(Backend::Tap("guest".into())));
    let client = kernel.vm(&world.scratch, &client_script("198.51.100.1", 80), port);
    assert_client_is_served(&Config { wrapper: world.client.wrapper(), ..client }, &page);
    world.assert_sound();
}
