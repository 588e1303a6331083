//! PROXY headers, however they are cut and whatever is around them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;
use smtp_proxy_proto::proxy::{Header, Malformed, Progress, V2_BYTES, read};

fn v1(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (client.ip(), server.ip());
    format!(
        "PROXY {family} {from} {to} {} {}\r\n",
        client.port(),
        server.port()
    )
    .into_bytes()
}

fn v2(client: SocketAddr, server: SocketAddr, tlvs: &[u8]) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut rest = [octets(client.ip()), octets(server.ip())].concat();
    rest.extend(client.port().to_be_bytes());
    rest.extend(server.port().to_be_bytes());
    rest.extend(tlvs);
    let family = if client.is_ipv4() { 0x11 } else { 0x21 };
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [
        b"\r\n\r\n\0\r\nQUIT\n\x21".as_slice(),
        &[family],
        &length,
        &rest,
    ]
    .concat()
}

fn pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    (any::<bool>(), any::<[u128; 2]>(), any::<[u16; 2]>()).prop_map(|(is_v6, bits, ports)| {
        let address = |bits: u128, port| {
            let v4 = IpAddr::from(Ipv4Addr::from_bits(u32::try_from(bits >> 96).unwrap()));
            let ip = if is_v6 {
                IpAddr::from(Ipv6Addr::from_bits(bits))
            } else {
                v4
            };
            SocketAddr::new(ip, port)
        };
        (address(bits[0], ports[0]), address(bits[1], ports[1]))
    })
}

/// As a caller reads: never more than is asked for, in pieces as they come.
fn read_piecewise(stream: &[u8], pieces: &[usize]) -> Result<(Header, usize), Malformed> {
    let (mut taken, mut pieces) = (0, pieces.iter().cycle());
    loop {
        match read(&stream[..taken])? {
            Progress::Complete(header, bytes) => {
                assert_eq!(bytes, taken, "bytes of what follows were taken");
                return Ok((header, bytes));
            }
            Progress::NeedMore(bytes) => {
                assert!((1..=V2_BYTES).contains(&bytes));
                let piece = bytes.min(*pieces.next().unwrap()).min(stream.len() - taken);
                if piece == 0 {
                    return Err(Malformed); // The client is gone.
                }
                taken += piece;
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        (client, server) in pair(),
        value in prop::collection::vec(any::<u8>(), 0..100),
        after in prop::collection::vec(any::<u8>(), 0..40),
        pieces in prop::collection::vec(1usize..40, 1..8),
    ) {
        let length = u16::try_from(value.len()).unwrap().to_be_bytes();
        let tlvs = [&[0xea], length.as_slice(), &value].concat();
        let canonical = |of: SocketAddr| SocketAddr::new(of.ip().to_canonical(), of.port());
        let told = Header::Announced { client: canonical(client), server: canonical(server) };
        for header in [v1(client, server), v2(client, server, &tlvs)] {
            let stream = [header.as_slice(), &after].concat();
            prop_assert_eq!(read_piecewise(&stream, &pieces), Ok((told, header.len())));
        }
    }

    #[test]
    fn any_cut_gives_the_same(
        start in prop::sample::select(vec![&b""[..], b"PROXY TCP4 1.2.3.4 ", b"PROXY UNKNOWN", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"]),
        rest in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b" 0.:1\r\n".to_vec())], 0..60),
        pieces in prop::collection::vec(1usize..9, 1..5),
    ) {
        let stream = [start, &rest].concat();
        prop_assert_eq!(read_piecewise(&stream, &pieces), read_piecewise(&stream, &[V2_BYTES]));
        if let Ok(Progress::Complete(header, bytes)) = read(&stream) {
            prop_assert_eq!(read_piecewise(&stream, &pieces), Ok((header, bytes)));
        }
    }
}
