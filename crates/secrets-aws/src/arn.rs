//! Parses ARNs.

/// `arn:<partition>:<service>:<region>:<account>:<resource>`, with a valid partition and account.
/// Region and account may be empty, as in ARNs of IAM and S3.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arn<'a> {
    pub(crate) partition: &'a str,
    pub(crate) service: &'a str,
    pub(crate) region: &'a str,
    pub(crate) account: &'a str,
    /// The rest; it may contain colons.
    pub(crate) resource: &'a str,
}

impl<'a> Arn<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let ["arn", partition, service, region, account, resource] = parts[..] else {
            return None;
        };
        let is_partition = partition.starts_with("aws")
            && partition
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        (is_partition && (account.is_empty() || is_account(account))).then_some(Self {
            partition,
            service,
            region,
            account,
            resource,
        })
    }

    /// The name and path of an IAM resource of this kind: the text after `<kind>/`.
    pub(crate) fn iam_name(&self, kind: &str) -> Option<&'a str> {
        let name = self.resource.strip_prefix(kind)?.strip_prefix('/')?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@/-".contains(&byte);
        (self.is_iam() && !name.is_empty() && name.bytes().all(allowed)).then_some(name)
    }

    /// Whether it is an ARN of IAM: with an account and without a region.
    pub(crate) fn is_iam(&self) -> bool {
        self.service == "iam" && self.region.is_empty() && !self.account.is_empty()
    }
}

/// Whether the text is an account id: 12 digits.
pub(crate) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_are_taken_apart_or_refused() {
        let role = Arn::parse("arn:aws-cn:iam::123456789012:role/path/x").unwrap();
        assert_eq!(role.partition, "aws-cn");
        assert_eq!(role.iam_name("role"), Some("path/x"));
        assert_eq!(role.iam_name("user"), None);
        let secret = Arn::parse("arn:aws:secretsmanager:eu-west-1:123456789012:secret:a").unwrap();
        assert_eq!((secret.region, secret.resource), ("eu-west-1", "secret:a"));
        assert!(!secret.is_iam());
        for text in [
            "",
            "arn:aws:iam::123456789012",
            "ARN:aws:iam::123456789012:role/x",
            "arn:gcp:iam::123456789012:role/x",
            "arn:aws*:iam::123456789012:role/x",
            "arn:aws:iam::12345:role/x",
        ] {
            assert_eq!(Arn::parse(text), None, "{text}");
        }
        for text in [
            "arn:aws:iam:::role/x",
            "arn:aws:iam:eu-west-1:123456789012:role/x",
            "arn:aws:sts::123456789012:role/x",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:role/*",
            "arn:aws:iam::123456789012:rolex",
        ] {
            assert_eq!(Arn::parse(text).unwrap().iam_name("role"), None, "{text}");
        }
    }
}
