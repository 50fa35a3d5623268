//! How much was done in a second: lines `rate: NAME VALUE UNIT` of what an entry prints.

/// The median of the lines with the same name.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    pub name: String,
    pub value: f64,
    pub unit: String,
}

/// Those of an output, in the order of their first lines.
pub fn read(output: &str) -> Vec<Rate> {
    let mut all: Vec<(Rate, Vec<f64>)> = Vec::new();
    for rate in output.lines().filter_map(line) {
        match all.iter_mut().find(|(first, _)| (&first.name, &first.unit) == (&rate.name, &rate.unit)) {
            Some((_, values)) => values.push(rate.value),
            None => all.push((rate.clone(), vec![rate.value])),
        }
    }
    all.into_iter().map(|(rate, values)| Rate { value: median(values), ..rate }).collect()
}

fn line(line: &str) -> Option<Rate> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["rate:", name, value, unit] = words[..] else { return None };
    let value = value.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0)?;
    Some(Rate { name: name.into(), value, unit: unit.into() })
}

/// Of at least one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_medians() {
        let output = "rate: set 10 requests/s\nrate: get 5 requests/s\nfirst: set 9 requests/s\nrate: set 30 requests/s\n\
                      rate: set x requests/s\nrate: set 12.5 requests/s\nrate: set\nrate: get 6 requests/s\nrate: none 0 a/s";
        let rate = |name: &str, value| Rate { name: name.into(), value, unit: "requests/s".into() };
        assert_eq!(read(output), [rate("set", 12.5), rate("get", 5.5)]);
    }
}
