/// A name that is no image's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an image is named by a tag ('python', 'python:3.11': a-z 0-9 . _ -, then perhaps ':' and A-Z a-z 0-9 . _ -, 128 characters at most) or by its digest ('sha256:' and 64 hexadecimal digits)"
)]
pub struct InvalidImageName;

/// Checks that a text is a tag or a digest. What passes is also safe as a file's name.
pub fn validate_image_name(text: &str) -> Result<(), InvalidImageName> {
    let (name, version) = match text.split_once(':') {
        Some((name, version)) => (name, Some(version)),
        None => (text, None),
    };
    let name_fits = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'));
    let version_fits = version.is_none_or(|version| {
        !version.is_empty()
            && version.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    });
    if name_fits && version_fits && text.len() <= 128 { Ok(()) } else { Err(InvalidImageName) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_digests_pass_and_paths_do_not() {
        for good in ["python", "python:3.11", "a", "my-image_2.0:V1", &format!("sha256:{}", "0".repeat(64))] {
            assert!(validate_image_name(good).is_ok(), "{good}");
        }
        for bad in ["", "..", "../x", "a/b", "A", "a:", "a:b:c", "-a", ".a", "a b", &"x".repeat(129)] {
            assert!(validate_image_name(bad).is_err(), "{bad}");
        }
    }
}
