//! Queries whose values may be any bytes: file names need not be UTF-8, so the usual form decoders will not do.

use percent_encoding::percent_decode_str;

use crate::{ErrorBody, ErrorCode, RawPath};

/// A parsed query: pairs in their order, values as bytes.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, Vec<u8>)>);

impl Query {
    /// Parses the part of a URL after `?`. A `+` stands for itself: clients of this API encode spaces as `%20`.
    pub fn parse(raw: &str) -> Self {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode_str(key).decode_utf8_lossy().into_owned(), percent_decode_str(value).collect())
        });
        Self(pairs.collect())
    }

    /// Fails on a parameter that is not among `allowed`, or that is given twice, naming it and what is allowed.
    pub fn only(&self, allowed: &[&str]) -> Result<(), ErrorBody> {
        self.only_with(allowed, &[])
    }

    /// The same, where those in `repeatable`, which are allowed too, may be given any number of times.
    pub fn only_with(&self, allowed: &[&str], repeatable: &[&str]) -> Result<(), ErrorBody> {
        for (index, (key, _)) in self.0.iter().enumerate() {
            if repeatable.contains(&key.as_str()) {
                continue;
            }
            if !allowed.contains(&key.as_str()) {
                let allowed = [allowed, repeatable].concat().join(", ");
                return Err(invalid(format!("unknown parameter '{key}'; allowed: {allowed}")));
            }
            if self.0[..index].iter().any(|(other, _)| other == key) {
                return Err(invalid(format!("parameter '{key}' is given twice")));
            }
        }
        Ok(())
    }

    /// A value's bytes.
    pub fn bytes(&self, key: &str) -> Option<&[u8]> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_slice())
    }

    /// A value as text.
    pub fn text(&self, key: &str) -> Result<Option<&str>, ErrorBody> {
        self.bytes(key)
            .map(|value| {
                std::str::from_utf8(value).map_err(|_| invalid(format!("parameter '{key}' must be UTF-8")))
            })
            .transpose()
    }

    /// The values of a parameter that may be given several times, as text, in their order.
    pub fn texts(&self, key: &str) -> Result<Vec<&str>, ErrorBody> {
        let values = self.0.iter().filter(|(name, _)| name == key);
        let texts = values.map(|(_, value)| std::str::from_utf8(value));
        texts.collect::<Result<_, _>>().map_err(|_| invalid(format!("parameter '{key}' must be UTF-8")))
    }

    /// A whole number, or `default` where there is none.
    pub fn number(&self, key: &str, default: u64) -> Result<u64, ErrorBody> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    /// A whole number, if given.
    pub fn optional_number(&self, key: &str) -> Result<Option<u64>, ErrorBody> {
        self.text(key)?
            .map(|text| {
                text.parse().map_err(|_| invalid(format!("parameter '{key}' must be a whole number")))
            })
            .transpose()
    }

    /// `true` or `false`; absent means false.
    pub fn flag(&self, key: &str) -> Result<bool, ErrorBody> {
        match self.text(key)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(invalid(format!("parameter '{key}' must be true or false"))),
        }
    }

    /// A path, which must be there.
    pub fn path(&self, key: &str) -> Result<RawPath, ErrorBody> {
        let value = self.bytes(key).ok_or_else(|| invalid(format!("parameter '{key}' is missing")))?;
        RawPath::new(value).map_err(|error| invalid(format!("parameter '{key}': {error}")))
    }

    /// Permission bits in octal, such as `0644` or `755`, if given.
    pub fn mode(&self, key: &str) -> Result<Option<u32>, ErrorBody> {
        self.text(key)?
            .map(|text| {
                u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(|| {
                    invalid(format!("parameter '{key}' must be octal permission bits, 0 to 7777"))
                })
            })
            .transpose()
    }
}

fn invalid(message: String) -> ErrorBody {
    ErrorBody::new(ErrorCode::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bytes() {
        let query = Query::parse("path=/a%FF%20b&limit=7&recursive=true&mode=0644");
        assert_eq!(query.path("path").unwrap().as_bytes(), b"/a\xff b");
        assert_eq!(query.number("limit", 1).unwrap(), 7);
        assert!(query.flag("recursive").unwrap());
        assert_eq!(query.mode("mode").unwrap(), Some(0o644));
        assert!(query.text("path").is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let message = |error: ErrorBody| error.message;
        assert_eq!(message(Query::parse("").path("path").unwrap_err()), "parameter 'path' is missing");
        assert!(message(Query::parse("path=a").path("path").unwrap_err()).contains("absolute"));
        assert!(message(Query::parse("x=1").only(&["path"]).unwrap_err()).contains("'x'; allowed: path"));
        assert!(message(Query::parse("a=1&a=2").only(&["a"]).unwrap_err()).contains("twice"));
        let labels = Query::parse("l=a&x=1&l=b");
        assert!(message(labels.only_with(&[], &["l"]).unwrap_err()).contains("'x'; allowed: l"));
        labels.only_with(&["x"], &["l"]).unwrap();
        assert_eq!(labels.texts("l").unwrap(), ["a", "b"]);
        assert!(Query::parse("m=8").mode("m").is_err());
        assert!(Query::parse("m=17777").mode("m").is_err());
        assert!(Query::parse("f=yes").flag("f").is_err());
        assert!(Query::parse("n=-1").number("n", 0).is_err());
    }
}
