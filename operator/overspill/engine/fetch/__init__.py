"""Load a model from a hub, an object store or a web server into a folder: `overspill-engine fetch`.

Runs in an init container before the engine. What is fixed: nothing is visible in the folder
before all of it is there and verified; nothing is written outside the cache; a killed load goes
on where it was; several loaders on one volume load once. Archives are never unpacked.

* `options`     environment variables → a frozen `Options`
* `source`      model URI → hub, bucket or web address
* `credential`  the Secret's files: what may be sent, and to which hosts
* `names`       which remote names are taken, and which are refused
* `hub`, `s3`   listings of the two protocols → remote files; `sigv4` signs for S3
* `web`         one HTTP request: redirects, timeouts, faults
* `listing`     source → the files to load
* `digest`      what a file's bytes must add up to
* `download`    one file: resume, verify
* `store`       folders on the volume: work, publish, reuse
* `lease`       one loader at a time on a shared volume
* `progress`    how far it is, for logs and for `GET /progress`
* `load`        all of it together
"""
