"""Fill a bucket by the vendor's own client; prints a key that may read it.

Run by the Python of the peers: `python bucket.py ENDPOINT FOLDER`. The server lets the first
actions pass without a signature (`ACTIONS` of them) and asks for
one from then on.
"""

import json
import sys
from pathlib import Path

import boto3
from boto3.s3.transfer import TransferConfig

ACTIONS = 4
PARTS = 5 << 20  # bytes; the largest file goes up in several parts, as large models do
POLICY = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}


def main() -> None:
    endpoint, folder = sys.argv[1], Path(sys.argv[2])
    given = {
        "endpoint_url": endpoint,
        "region_name": "us-east-1",
        "aws_access_key_id": "nobody",
        "aws_secret_access_key": "nothing",
    }
    iam, s3 = boto3.client("iam", **given), boto3.client("s3", **given)
    iam.create_user(UserName="reader")
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    iam.put_user_policy(
        UserName="reader",
        PolicyName="read",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [POLICY]}),
    )
    s3.create_bucket(Bucket="models")
    own = boto3.client(
        "s3",
        **given
        | {
            "aws_access_key_id": key["AccessKeyId"],
            "aws_secret_access_key": key["SecretAccessKey"],
        },
    )
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        config = TransferConfig(multipart_threshold=PARTS, multipart_chunksize=PARTS)
        own.upload_file(str(path), "models", name, Config=config)
    print(json.dumps({"id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}))


if __name__ == "__main__":
    main()
