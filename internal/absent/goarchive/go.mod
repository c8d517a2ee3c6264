module github.com/moby/go-archive

go 1.26
