//! Commands for mongosh that operators copy from the server's log or a terminal.

/// The command that creates the user of this name in `$external`, with an example role to replace.
///
/// Strings are in single quotes, so that the line can be pasted as it stands in the log, which is
/// JSON.
pub fn create_user(user_name: &str) -> String {
    format!(
        "db.getSiblingDB('$external').createUser({{user: {}, roles: [{{role: 'readWrite', db: 'test'}}]}})",
        quoted(user_name)
    )
}

/// The text as a string literal of JavaScript.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("'");
    for character in text.chars() {
        match character {
            // The path of an IAM user may contain both of these.
            '\'' | '\\' => quoted.extend(['\\', character]),
            // No user name has one, but the command also quotes what a server sent.
            _ if character.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => quoted.push(character),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn miri_a_name_that_javascript_would_take_apart_is_quoted() {
        for (name, literal) in [
            ("arn:aws:iam::123456789012:role/app", "'arn:aws:iam::123456789012:role/app'"),
            (r#"arn:aws:iam::123456789012:user/a'b\c"d/e"#, r#"'arn:aws:iam::123456789012:user/a\'b\\c"d/e'"#),
            ("\n\u{1b}[31m\u{9f}é", r"'\u000a\u001b[31m\u009fé'"),
        ] {
            assert_eq!(
                create_user(name),
                format!(
                    "db.getSiblingDB('$external').createUser({{user: {literal}, roles: [{{role: 'readWrite', db: 'test'}}]}})"
                )
            );
        }
    }
}
