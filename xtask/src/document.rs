//! Documents that hold a table which a command writes.

use anyhow::{Context, Result};

/// What the tables of most documents are called.
pub const FIGURES: &str = "figures";

/// The document with this between its two marks, `<!-- NAME -->` and `<!-- end of NAME -->`, in the place of what was there.
pub fn put(document: &str, name: &str, table: &str) -> Result<String> {
    let [begin, end] = marks(name);
    let missing = || format!("the document has no lines {begin} and {end}");
    let (before, rest) = document.split_once(&begin).with_context(missing)?;
    let (_, after) = rest.split_once(&end).with_context(missing)?;
    Ok(format!("{before}{begin}\n\n{table}\n{end}{after}"))
}

fn marks(name: &str) -> [String; 2] {
    [format!("<!-- {name} -->"), format!("<!-- end of {name} -->")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_gets_a_new_table_and_keeps_the_rest() {
        let ([begin, end], [other, _]) = (marks(FIGURES), marks("others"));
        let old = format!("# Title\n{begin}\nold\n{end}\n{other}\nrest\n");
        let new = put(&old, FIGURES, "| new |\n").unwrap();
        assert_eq!(new, format!("# Title\n{begin}\n\n| new |\n\n{end}\n{other}\nrest\n"));
        assert_eq!(put(&new, FIGURES, "| new |\n").unwrap(), new);
        assert!(put(&old, "others", "").is_err());
    }
}
