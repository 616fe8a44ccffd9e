module blixt.dev/cluster/pause

go 1.26.0
