//! What goes wrong on a wire, and how often. What happens to a frame is decided by the seed, its direction and its number
//! alone, so the same frames meet the same fate again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::control::Door;

/// `--faults loss=1,reorder=1,duplicate=1,seed=7`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    pub rates: Rates,
    pub seed: u64,
    /// Where the wire is told what to do, see [`super::control`].
    pub control: Option<Door>,
}

/// What can be changed while the wire is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// In percent of the frames of each direction.
    pub loss: f64,
    pub duplicate: f64,
    /// A frame comes after up to [`BEHIND`] that were sent later.
    pub reorder: f64,
    /// One bit of an IP packet is the wrong one.
    pub corrupt: f64,
    /// How much later each frame arrives.
    pub delay: Duration,
}

/// After how many later frames one arrives that is out of order, at most.
pub const BEHIND: u64 = 4;

/// What happens to a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fate {
    pub lost: bool,
    pub duplicated: bool,
    /// After how many later ones it arrives.
    pub behind: u64,
    /// Which of its bits is wrong, modulo how many there are.
    pub corrupt: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToCard,
    ToNetwork,
}

/// Sebastiano Vigna's splitmix64: well mixed for inputs that follow one another.
pub fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Rates {
    /// The fate of the frame with this number.
    pub fn fate(&self, seed: u64, direction: Direction, number: u64) -> Fate {
        let base = mixed(mixed(seed.wrapping_mul(2) + direction as u64) ^ number);
        let draw = |which: u64| mixed(base.wrapping_add(which));
        // 53 bits are what a float has.
        let happens = |which: u64, percent: f64| ((draw(which) >> 11) as f64) < percent / 100.0 * (1_u64 << 53) as f64;
        Fate {
            lost: happens(0, self.loss),
            duplicated: happens(1, self.duplicate),
            behind: if happens(2, self.reorder) { 1 + draw(3) % BEHIND } else { 0 },
            corrupt: happens(4, self.corrupt).then(|| draw(5)),
        }
    }

    /// Sets one of them. False: there is none of this name.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        match name {
            "loss" => self.loss = percent(name, value)?,
            "duplicate" => self.duplicate = percent(name, value)?,
            "reorder" => self.reorder = percent(name, value)?,
            "corrupt" => self.corrupt = percent(name, value)?,
            "delay" => {
                let time = value.parse().ok().filter(|time| *time <= 10_000);
                let time =
                    time.ok_or_else(|| format!("delay={value}: not a number of milliseconds from 0 to 10000"))?;
                self.delay = Duration::from_millis(time);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn percent(name: &str, value: &str) -> Result<f64, String> {
    let number = value.parse::<f64>().ok().filter(|number| (0.0..=100.0).contains(number));
    number.ok_or_else(|| format!("{name}={value}: not a percentage from 0 to 100"))
}

/// The words of `NAME=VALUE,NAME=VALUE`.
pub fn words(text: &str) -> impl Iterator<Item = Result<(&str, &str), String>> {
    let word = |word: &'_ str| format!("{word:?} is not NAME=VALUE");
    text.split(',').map(move |text| text.split_once('=').ok_or_else(|| word(text)))
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Faults, String> {
        let mut faults = Faults::default();
        for word in words(text) {
            let (name, value) = word?;
            match name {
                "seed" => faults.seed = value.parse().map_err(|_| format!("seed={value}: not a number"))?,
                "control" => {
                    let port = value.parse().ok().filter(|port| *port > 0);
                    let port = port.ok_or_else(|| format!("control={value}: not a port from 1 to 65535"))?;
                    faults.control = Some(Door::at(port));
                }
                _ if faults.rates.set(name, value)? => {}
                _ => {
                    return Err(format!(
                        "there is no fault {name:?}: what is there are loss, reorder, duplicate, corrupt (percent), \
                         delay (milliseconds), seed and control"
                    ));
                }
            }
        }
        Ok(faults)
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Rates { loss, duplicate, reorder, corrupt, delay } = self;
        write!(f, "loss={loss} reorder={reorder} duplicate={duplicate} corrupt={corrupt} delay={}", delay.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_percentages_with_a_seed() {
        let faults: Faults = "loss=1,reorder=0.5,duplicate=2,corrupt=3,delay=20,seed=9,control=8099".parse().unwrap();
        let rates = Rates { loss: 1.0, duplicate: 2.0, reorder: 0.5, corrupt: 3.0, delay: Duration::from_millis(20) };
        assert_eq!(faults, Faults { rates, seed: 9, control: Some(Door::at(8099)) });
        let refusal = |text: &str| text.parse::<Faults>().unwrap_err();
        assert_eq!(refusal("loss=101"), "loss=101: not a percentage from 0 to 100");
        assert_eq!(refusal("loss=NaN"), "loss=NaN: not a percentage from 0 to 100");
        assert_eq!(refusal("delay=-1"), "delay=-1: not a number of milliseconds from 0 to 10000");
        assert_eq!(refusal("loss"), "\"loss\" is not NAME=VALUE");
        assert_eq!(refusal("seed=x"), "seed=x: not a number");
        assert_eq!(refusal("control=0"), "control=0: not a port from 1 to 65535");
        assert!(refusal("noise=1").starts_with("there is no fault \"noise\": what is there are loss,"));
    }

    #[test]
    fn the_same_frame_meets_the_same_fate_and_as_many_as_asked_for_go_wrong() {
        let rates = Rates { loss: 1.0, duplicate: 2.0, reorder: 50.0, corrupt: 0.0, delay: Duration::ZERO };
        let fates =
            |seed, direction| (0..100_000).map(|number| rates.fate(seed, direction, number)).collect::<Vec<_>>();
        let fate = fates(1, Direction::ToCard);
        assert_eq!(fate, fates(1, Direction::ToCard));
        assert_ne!(fate, fates(2, Direction::ToCard));
        assert_ne!(fate, fates(1, Direction::ToNetwork));
        let count = |which: fn(&Fate) -> bool| fate.iter().filter(|fate| which(fate)).count();
        assert!((900..1100).contains(&count(|fate| fate.lost)));
        assert!((1850..2150).contains(&count(|fate| fate.duplicated)));
        assert!((49_000..51_000).contains(&count(|fate| fate.behind > 0)));
        assert_eq!(count(|fate| fate.corrupt.is_some() || fate.behind > BEHIND), 0);
    }

    #[test]
    fn what_is_switched_off_does_not_happen() {
        assert!((0..1000).all(|number| Rates::default().fate(5, Direction::ToCard, number) == Fate::default()));
    }
}
