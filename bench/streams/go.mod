module overspill.dev/bench/streams

go 1.26.0
