//! The address that a request comes from: the peer's, or the one that a trusted proxy names.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::HeaderMap;
use axum::http::request::Parts;

const FORWARDED_FOR: &str = "x-forwarded-for";
/// A network of IPv6 that one customer has: its owner has all addresses in it.
const IPV6_NETWORK: u32 = 64;

/// The networks whose word on where a request comes from is believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TrustedProxies {
    networks: Vec<Network>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

/// A text that is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address or a network, such as 10.0.0.5 or 10.0.0.0/8")]
pub(crate) struct NotANetwork(String);

impl TrustedProxies {
    /// Reads addresses (`10.0.0.5`, `fd00::1`) and networks (`10.0.0.0/8`). The error is the first that is neither.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, NotANetwork> {
        let parsed = |text: &String| Network::parse(text).ok_or_else(|| NotANetwork(text.clone()));
        let networks = texts.iter().map(parsed).collect::<Result<_, _>>()?;
        Ok(Self { networks })
    }

    /// The client's address that a request is counted for; `None` if the server does not know the peer's address.
    pub(crate) fn client_of(&self, parts: &Parts) -> Option<IpAddr> {
        let ConnectInfo(peer) = parts.extensions.get::<ConnectInfo<SocketAddr>>()?;
        let peer = peer.ip().to_canonical();
        Some(network_of(self.origin(peer, &parts.headers)))
    }

    /// The last hop that is no trusted proxy. The client may have written the addresses before it in the header.
    fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut origin = peer;
        let lines = headers.get_all(FORWARDED_FOR).iter();
        let lines: Vec<_> = lines.map(|line| line.to_str().unwrap_or_default()).collect();
        let mut hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
        while self.holds(origin) {
            match hops.next().map(|hop| read_hop(hop.trim())) {
                Some(Some(hop)) => origin = hop,
                _ => break,
            }
        }
        origin
    }

    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.holds(address))
    }
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { address, bits })
    }

    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = u32::from(network) ^ u32::from(address);
                differing.leading_zeros() >= self.bits
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = u128::from(network) ^ u128::from(address);
                differing.leading_zeros() >= self.bits
            }
            _ => false,
        }
    }
}

/// An address, as proxies write it: alone, or with a port.
fn read_hop(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    address.or_else(with_port).map(|address| address.to_canonical())
}

pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let mask = u128::MAX << (u128::BITS - IPV6_NETWORK);
            IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let trusted: Vec<_> = trusted.iter().map(|&text| text.to_owned()).collect();
        let mut request = Request::new(());
        for line in forwarded {
            request.headers_mut().append(FORWARDED_FOR, line.parse().unwrap());
        }
        let peer = SocketAddr::new(peer.parse().unwrap(), 1);
        request.extensions_mut().insert(ConnectInfo(peer));
        let proxies = TrustedProxies::parse(&trusted).unwrap();
        proxies.client_of(&request.into_parts().0).unwrap().to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        assert_eq!(client(&[], "10.0.0.1", &["1.2.3.4"]), "10.0.0.1");
        assert_eq!(client(&["10.0.0.2"], "10.0.0.1", &["1.2.3.4"]), "10.0.0.1");
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(
            client(&["10.0.0.0/8"], "::ffff:10.0.0.1", &["1.2.3.4"]),
            "1.2.3.4"
        );
        assert_eq!(client(&["0.0.0.0/0"], "10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_last_hop_counts_that_is_no_proxy() {
        let lies = ["9.9.9.9, 8.8.8.8", "7.7.7.7,1.2.3.4:99"];
        assert_eq!(client(&["10.0.0.1"], "10.0.0.1", &lies), "1.2.3.4");
        let chain = ["9.9.9.9, 1.2.3.4, 10.0.0.7"];
        assert_eq!(client(&["10.0.0.0/24"], "10.0.0.1", &chain), "1.2.3.4");
        assert_eq!(client(&["10.0.0.1"], "10.0.0.1", &chain), "10.0.0.7");
        assert_eq!(
            client(&["10.0.0.1"], "10.0.0.1", &["1.2.3.4, nonsense"]),
            "10.0.0.1"
        );
    }

    #[test]
    fn who_has_a_network_has_one_address() {
        let one = client(&["::1"], "::1", &["2001:db8:1:2:aaaa::1"]);
        assert_eq!(one, "2001:db8:1:2::");
        assert_eq!(client(&["::1"], "::1", &["[2001:db8:1:2:bbbb::2]:443"]), one);
        assert_ne!(client(&["::1"], "::1", &["2001:db8:1:3::1"]), one);
    }

    #[test]
    fn what_is_no_network_is_named() {
        for wrong in [
            "",
            "10.0.0",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "proxy",
            "10.0.0.0/-1",
        ] {
            let texts = ["10.0.0.1".to_owned(), wrong.to_owned()];
            assert_eq!(TrustedProxies::parse(&texts), Err(NotANetwork(wrong.to_owned())));
        }
    }
}
