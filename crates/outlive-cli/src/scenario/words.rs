//! The closed sets of words that stand in a scenario file. Used by the model, which re-exports them, and by what reads it.

use core::fmt;
use core::str::FromStr;

/// Declares a closed set of words that stand in a scenario file.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$word_doc])* $variant,)+ }

        impl $name {
            /// Every word with its meaning, in the order of the contract.
            pub const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant),)+];

            /// The word in the file.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                let found = Self::WORDS.iter().find(|(known, _)| *known == word);
                found.map(|(_, value)| *value).ok_or_else(|| format!("expected {}", one_of(Self::WORDS)))
            }
        }
    };
}

words! {
    /// What the jobs run on.
    DeviceKind {
        /// The simulated GPU.
        Sim = "sim",
    }
}

words! {
    /// Who decides what the hardware does next.
    Mode {
        /// One hardware queue per client; the device rotates them.
        Firmware = "firmware",
        /// A policy in software chooses, for hardware with fewer slots than clients.
        Arbiter = "arbiter",
    }
}

words! {
    /// How the arbiter chooses.
    Policy {
        /// By measured hardware time, groups first.
        Fair = "fair",
        /// Whoever was ready first.
        Fifo = "fifo",
        /// One job of each in turn.
        RoundRobin = "round-robin",
    }
}

words! {
    /// How urgent a client is.
    Priority {
        /// Served first, up to half the device.
        Realtime = "realtime",
        /// Four times its weight.
        High = "high",
        /// Its weight.
        Normal = "normal",
        /// A quarter of its weight.
        Low = "low",
    }
}

words! {
    /// What a job does with its buffers for its whole hardware time.
    Work {
        /// Computes.
        Spin = "spin",
        /// Writes a pattern.
        Fill = "fill",
        /// Copies.
        Copy = "copy",
        /// Draws one frame.
        Gears = "gears",
    }
}

words! {
    /// What a job is told to do wrong.
    FaultKind {
        /// It never ends and does not yield its engine.
        Hang = "hang",
        /// It touches an address that is not mapped.
        PageFault = "page-fault",
        /// It ends with an error.
        Error = "error",
        /// It ends, and nobody is told.
        LostCompletion = "lost-completion",
    }
}

words! {
    /// What a job does when a job that it depends on has failed.
    OnError {
        /// It fails too.
        Fail = "fail",
        /// It runs once the other's memory is free.
        Run = "run",
    }
}

/// "`a`, `b` or `c`".
pub(crate) fn one_of<T>(words: &[(&str, T)]) -> String {
    let mut text = String::new();
    for (place, (word, _)) in words.iter().enumerate() {
        let joint = match place {
            0 => "",
            _ if place + 1 == words.len() => " or ",
            _ => ", ",
        };
        text.push_str(joint);
        text.push('`');
        text.push_str(word);
        text.push('`');
    }
    text
}
