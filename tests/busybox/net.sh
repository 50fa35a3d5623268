# Programs that talk to each other through the loopback.
# Waits until somebody listens on this port.
listens() { for i in $(seq 50); do netstat -tln | grep -q ":$1 " && return; sleep 0.1; done; echo "nobody listens on $1"; }

#@ loopback
ifconfig lo | sed 's/ *$//' | grep -v 'packets\|bytes\|collisions' | sed -n '1,2p'; ifconfig lo | grep -o 'UP LOOPBACK RUNNING *MTU:[0-9]*'

#@ httpd and wget
mkdir w; yes 'a line of text' | head -n 100000 > w/big; echo small > w/small; httpd -f -p 127.0.0.1:8080 -h w & p=$!; listens 8080; wget -q -O - http://127.0.0.1:8080/small; wget -q -O got http://localhost:8080/big; cmp got w/big; echo $?; md5sum < got; wget -q -O /dev/null http://127.0.0.1:8080/nosuch; echo $?; kill $p

#@ many requests at once
mkdir w; yes text | head -n 20000 > w/f; httpd -f -p 127.0.0.1:8081 -h w & p=$!; listens 8081; for i in $(seq 20); do wget -q -O f$i http://127.0.0.1:8081/f & q="$q $!"; done; wait $q; md5sum f* | cut -c 1-32 | sort | uniq -c | awk '{ print $1, $2 }'; kill $p

#@ nc
nc -l -p 9001 -e md5sum & p=$!; listens 9001; head -c 3000000 /dev/zero | tr '\0' x | nc 127.0.0.1 9001; wait $p; echo $?; head -c 3000000 /dev/zero | tr '\0' x | md5sum

#@ nobody there
nc 127.0.0.1 9002 < /dev/null; echo $?; wget -q -O - http://127.0.0.1:9002/; echo $?

#@ netstat
nc -l -p 9003 & p=$!; listens 9003; netstat -tln | grep 9003 | tr -s ' ' | sed 's/ *$//'; kill $p

#@ echo server
nc -l -p 9005 -e cat & p=$!; listens 9005; (echo one; sleep 0.2; echo two) | nc 127.0.0.1 9005; wait $p; echo $?
