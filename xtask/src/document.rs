//! Documents that hold a table which a command writes.

use anyhow::{Context, Result};

const BEGIN: &str = "<!-- figures -->";
const END: &str = "<!-- end of figures -->";

/// The document with this between the two marks, in the place of what was there.
pub fn put(document: &str, table: &str) -> Result<String> {
    let missing = || format!("the document has no lines {BEGIN} and {END}");
    let (before, rest) = document.split_once(BEGIN).with_context(missing)?;
    let (_, after) = rest.split_once(END).with_context(missing)?;
    Ok(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_gets_a_new_table_and_keeps_the_rest() {
        let old = format!("# Title\n{BEGIN}\nold\n{END}\nrest\n");
        let new = put(&old, "| new |\n").unwrap();
        assert_eq!(new, format!("# Title\n{BEGIN}\n\n| new |\n\n{END}\nrest\n"));
        assert_eq!(put(&new, "| new |\n").unwrap(), new);
        assert!(put("no place", "").is_err());
    }
}
