//! Why a packet is not sent on. Every drop has a name and a counter.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal,)+) => {
        /// Why a packet was dropped. The discriminant is its index in the map `DROPS`.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum DropReason { $($(#[doc = $doc])+ $name,)+ }

        impl DropReason {
            /// All of them, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The one with this discriminant; a number that is none's is our own fault.
            #[inline(always)]
            pub const fn from_number(number: u8) -> Self {
                match number {
                    $(n if n == Self::$name as u8 => Self::$name,)+
                    _ => Self::Internal,
                }
            }

            /// Its name in metrics and in `status`.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }

            /// One sentence for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+),)+ }
            }
        }
    };
}

reasons! {
    /// The packet ends before its headers do.
    Truncated = "truncated",
    /// A length in a header contradicts another one or the packet's size.
    BadLength = "bad_length",
    /// The sum of the IPv4 header is wrong.
    BadChecksum = "bad_checksum",
    /// Source and destination are the same, or an address that cannot send or receive.
    BadAddress = "bad_address",
    /// More IPv6 extension headers than are followed.
    TooManyHeaders = "too_many_headers",
    /// A later fragment whose first part is unknown.
    FragmentUnknown = "fragment_unknown",
    /// A fragment that overlaps another one, or is too short to be honest.
    FragmentOverlap = "fragment_overlap",
    /// TTL or hop limit is used up.
    TtlExceeded = "ttl_exceeded",
    /// The packet is larger than the way to the backend or client allows.
    TooBig = "too_big",
    /// No listener, no route, or a share without a backend: answered with RST or ICMP.
    Refused = "refused",
    /// The backend of the connection is gone: answered with RST.
    BackendGone = "backend_gone",
    /// Belongs to no flow and to no socket of this machine, though a backend sent it.
    NoFlow = "no_flow",
    /// No source port is free for one more connection to this backend.
    PortsExhausted = "ports_exhausted",
    /// More connections began on one CPU than it puts into the table in so short a time.
    Flood = "flood",
    /// The flow table took no new entry.
    TableFull = "table_full",
    /// An answer that the limit of answers a second kept back.
    AnswerLimited = "answer_limited",
    /// No way leads to the backend or client: no route, or a neighbour that does not answer.
    NoWay = "no_way",
    /// An ICMP error about a packet that belongs to no flow.
    IcmpUnrelated = "icmp_unrelated",
    /// The program met what it holds impossible: a helper failed, or a table is inconsistent.
    Internal = "internal",
}

impl DropReason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
}
