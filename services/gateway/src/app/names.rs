use rand::Rng as _;
use rand::seq::IndexedRandom as _;

const ADJECTIVES: [&str; 48] = [
    "amber",
    "ardent",
    "balanced",
    "bold",
    "brave",
    "bright",
    "calm",
    "candid",
    "clever",
    "cosy",
    "daring",
    "eager",
    "earnest",
    "fair",
    "fervent",
    "fond",
    "gentle",
    "glad",
    "happy",
    "honest",
    "humble",
    "jolly",
    "keen",
    "kind",
    "lively",
    "loyal",
    "lucid",
    "mellow",
    "merry",
    "modest",
    "nimble",
    "noble",
    "optimistic",
    "patient",
    "proud",
    "quiet",
    "quick",
    "serene",
    "sharp",
    "silent",
    "sincere",
    "steady",
    "sunny",
    "tender",
    "tidy",
    "vivid",
    "warm",
    "witty",
];
const SURNAMES: [&str; 48] = [
    "abel",
    "ampere",
    "archimedes",
    "babbage",
    "bell",
    "bohr",
    "boole",
    "carson",
    "curie",
    "darwin",
    "dijkstra",
    "einstein",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "franklin",
    "galileo",
    "gauss",
    "germain",
    "goodall",
    "hamilton",
    "hertz",
    "hilbert",
    "hopper",
    "hypatia",
    "joule",
    "kepler",
    "knuth",
    "lamarr",
    "laplace",
    "leibniz",
    "lovelace",
    "maxwell",
    "meitner",
    "mendel",
    "newton",
    "noether",
    "pascal",
    "pasteur",
    "planck",
    "ramanujan",
    "ritchie",
    "shannon",
    "tesla",
    "turing",
    "volta",
];

/// `adjective_surname`; with a digit from the second attempt on, since the plain one was taken.
pub fn random_name(attempt: u32) -> String {
    let mut random = rand::rng();
    let adjective = ADJECTIVES.choose(&mut random).copied().unwrap_or("calm");
    let surname = SURNAMES.choose(&mut random).copied().unwrap_or("hertz");
    match attempt {
        0 => format!("{adjective}_{surname}"),
        _ => format!("{adjective}_{surname}{}", random.random_range(0..10u32.saturating_pow(attempt.min(6)))),
    }
}

/// Docker's grammar of a container's name.
pub fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.len() >= 2
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}
